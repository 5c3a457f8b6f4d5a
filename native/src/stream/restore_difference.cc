#include "stream/restore_difference.h"

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "diff/page_run.h"
#include "repository/block_geometry.h"
#include "repository/map_reader.h"

namespace blockferry {
namespace {

constexpr unsigned kThreadCountMax = 8;
// What a thread works on without asking for more: the blocks of one leaf of the map, so that
// every leaf is read by one thread only.
constexpr uint64_t kRegionBlockCount = kMapFanOut;
constexpr uint64_t kRegionSizeBytes = kRegionBlockCount * kBlockSize;
// What a thread holds of the image, and reads ahead in it.
constexpr uint64_t kPieceBlockCount = 16;
constexpr uint64_t kReadBlockCountMax = kReadSizeBytesMax / kBlockSize;
static_assert(kPieceBlockCount <= kReadCountMax);
static_assert(kRegionBlockCount % kPieceBlockCount == 0);

// QEMU counts disks in sectors.
constexpr uint64_t kSectorSize = 512;

struct Difference {
  ChunkReader* chunks;
  const Naming* naming;
  StoredDisk disk;
  const OpenImageSource* open_source;
  DiskImage* image;
  const Cancel* cancel;
  Progress* progress;
};

// Hands the disk out, region by region, and knows how far all threads are.
class Regions {
 public:
  Regions(uint64_t size_bytes, unsigned thread_count, Counter* position_bytes)
      : size_bytes_(size_bytes), at_(thread_count, 0), position_bytes_(position_bytes) {}

  // The next region, and says that the thread is done with its last one. Absent when there is
  // none left or the work has failed.
  std::optional<uint64_t> Take(unsigned thread) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) return std::nullopt;
    at_[thread] = next_;
    const uint64_t done = *std::min_element(at_.begin(), at_.end());
    position_bytes_->Set(std::min(done * kRegionSizeBytes, size_bytes_));
    if (next_ * kRegionSizeBytes >= size_bytes_) return std::nullopt;
    return next_++;
  }

  // Ends the work; the first failure is kept.
  void Fail(const Status& failure) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.ok()) failure_ = failure;
  }
  Status failure() {
    std::lock_guard<std::mutex> lock(mutex_);
    return failure_;
  }

 private:
  const uint64_t size_bytes_;
  std::mutex mutex_;
  uint64_t next_ = 0;
  // The region each thread works on; all before the lowest are done.
  std::vector<uint64_t> at_;
  Counter* position_bytes_;
  Status failure_;
};

Status ReadFailure(const Status& failure) {
  return Status(failure.reason(), "compare with the image: " + failure.message(),
                failure.metadata());
}

// One thread's view of the image and of the map.
class Comparer {
 public:
  explicit Comparer(const Difference& work)
      : work_(work),
        map_(work.chunks, work.disk.root, BlockCountOf(work.disk.size_bytes)),
        image_bytes_(kPieceBlockCount * kBlockSize),
        chunk_(kBlockSize) {}

  Status Open() {
    ASSIGN_OR_RETURN(source_, (*work_.open_source)());
    const uint64_t size_bytes = work_.disk.size_bytes;
    const uint64_t found_bytes = source_->size_bytes();
    if (found_bytes >= size_bytes && found_bytes - size_bytes < kSectorSize) return Status();
    const std::string needed = std::to_string(size_bytes);
    const std::string found = std::to_string(found_bytes);
    return Status(reason::kDiskSizeMismatch,
                  "compare with the image: it has " + found + " bytes, the disk has " + needed +
                      "; restore the disk whole",
                  {{"found_bytes", found}, {"needed_bytes", needed}});
  }

  Status MendRegion(uint64_t region) {
    const uint64_t end = std::min(map_.block_count(), (region + 1) * kRegionBlockCount);
    for (uint64_t at = region * kRegionBlockCount; at < end; at += kPieceBlockCount) {
      RETURN_IF_ERROR(work_.cancel->Check());
      RETURN_IF_ERROR(MendPiece(at, std::min(end, at + kPieceBlockCount)));
    }
    return Status();
  }

  // What the image has beyond the disk's end.
  Status MendTail() {
    const uint64_t offset_bytes = work_.disk.size_bytes;
    const uint64_t tail_bytes = source_->size_bytes() - offset_bytes;
    if (tail_bytes == 0) return Status();
    const MutableBytes tail = MutableBytes(image_bytes_).first(tail_bytes);
    Status read = source_->Submit(offset_bytes, tail);
    if (read.ok()) read = source_->Await();
    if (!read.ok()) return ReadFailure(read);
    return ZeroPages(offset_bytes, tail);
  }

 private:
  struct Block {
    // Absent: a hole of the disk.
    std::optional<Digest> name;
    // False: the image reads as zeroes here.
    bool allocated = false;
  };
  struct Read {
    uint64_t first;
    uint64_t end;
  };

  uint64_t SizeAt(uint64_t index) const { return BlockSizeAt(work_.disk.size_bytes, index); }

  MutableBytes ImageBytes(uint64_t index, uint64_t piece) {
    return MutableBytes(image_bytes_).subspan((index - piece) * kBlockSize, SizeAt(index));
  }

  Status MendPiece(uint64_t first, uint64_t end) {
    RETURN_IF_ERROR(FindNames(first, end));
    RETURN_IF_ERROR(FindAllocated(first, end));
    std::deque<Read> reads;
    RETURN_IF_ERROR(SubmitReads(first, end, &reads));
    for (uint64_t index = first; index < end;) {
      if (!reads.empty() && reads.front().first == index) {
        const Status read = source_->Await();
        if (!read.ok()) return ReadFailure(read);
        for (; index < reads.front().end; ++index) {
          RETURN_IF_ERROR(MendBlock(index, ImageBytes(index, first), blocks_[index - first].name));
        }
        reads.pop_front();
        continue;
      }
      if (blocks_[index - first].name.has_value()) {
        RETURN_IF_ERROR(FillHole(index, ImageBytes(index, first), *blocks_[index - first].name));
      }
      ++index;
    }
    return Status();
  }

  Status FindNames(uint64_t first, uint64_t end) {
    blocks_.fill(Block());
    for (uint64_t at = first; at < end;) {
      ASSIGN_OR_RETURN(const std::optional<MapEntry> entry, map_.Next(at));
      if (!entry.has_value() || entry->index >= end) break;
      blocks_[entry->index - first].name = entry->name;
      at = entry->index + 1;
    }
    return Status();
  }

  Status FindAllocated(uint64_t first, uint64_t end) {
    const uint64_t end_bytes = std::min(end * kBlockSize, work_.disk.size_bytes);
    for (uint64_t at = first * kBlockSize; at < end_bytes;) {
      const Result<Extent> extent = source_->ExtentAt(at);
      if (!extent.ok()) return ReadFailure(extent.status());
      const uint64_t extent_end = std::min(extent->end_bytes(), end_bytes);
      if (extent->allocated) {
        const uint64_t last = (extent_end - 1) / kBlockSize;
        for (uint64_t index = at / kBlockSize; index <= last; ++index) {
          blocks_[index - first].allocated = true;
        }
      }
      at = extent_end;
    }
    return Status();
  }

  // Neighbours are read together.
  Status SubmitReads(uint64_t first, uint64_t end, std::deque<Read>* reads) {
    for (uint64_t index = first; index < end;) {
      if (!blocks_[index - first].allocated) {
        ++index;
        continue;
      }
      Read read{index, index};
      uint64_t size_bytes = 0;
      while (read.end < end && blocks_[read.end - first].allocated &&
             read.end - read.first < kReadBlockCountMax) {
        size_bytes += SizeAt(read.end++);
      }
      const MutableBytes buffer =
          MutableBytes(image_bytes_).subspan((read.first - first) * kBlockSize, size_bytes);
      const Status submitted = source_->Submit(read.first * kBlockSize, buffer);
      if (!submitted.ok()) return ReadFailure(submitted);
      reads->push_back(read);
      index = read.end;
    }
    return Status();
  }

  // A block whose bytes in the image are `found`.
  Status MendBlock(uint64_t index, Bytes found, const std::optional<Digest>& name) {
    work_.progress->compared_bytes.Add(found.size());
    if (!name.has_value()) return ZeroPages(index * kBlockSize, found);
    if (work_.naming->ChunkName(found) == *name) return Status();
    return WritePages(index, found, *name);
  }

  // A block that is a hole in the image only.
  Status FillHole(uint64_t index, MutableBytes zeroes, const Digest& name) {
    std::fill(zeroes.begin(), zeroes.end(), std::byte{0});
    return WritePages(index, zeroes, name);
  }

  Status WritePages(uint64_t index, Bytes found, const Digest& name) {
    const MutableBytes wanted = MutableBytes(chunk_).first(found.size());
    uint64_t stored_size = 0;
    RETURN_IF_ERROR(work_.chunks->ReadChunk(name, wanted, Proof::kPlain, &stored_size));
    work_.progress->read_bytes.Add(stored_size);
    work_.progress->block_count.Add(1);
    for (size_t from = 0;;) {
      const PageRun run = NextDifferentRun(wanted, found, from);
      if (run.size == 0) return Status();
      RETURN_IF_ERROR(work_.image->Write(index * kBlockSize + run.offset,
                                         Bytes(wanted).subspan(run.offset, run.size)));
      CountWritten(run);
      from = run.end();
    }
  }

  Status ZeroPages(uint64_t offset_bytes, Bytes found) {
    bool differs = false;
    for (size_t from = 0;;) {
      const PageRun run = NextNonZeroRun(found, from);
      if (run.size == 0) break;
      RETURN_IF_ERROR(work_.image->Zero(offset_bytes + run.offset, run.size));
      CountWritten(run);
      differs = true;
      from = run.end();
    }
    if (differs) work_.progress->block_count.Add(1);
    return Status();
  }

  void CountWritten(const PageRun& run) {
    work_.progress->changed_bytes.Add(run.size);
    work_.progress->stored_bytes.Add(run.size);
  }

  const Difference& work_;
  MapReader map_;
  std::array<Block, kPieceBlockCount> blocks_;
  // Of the image, and of the repository. The source fills the first, so that it ends before it.
  ByteVector image_bytes_;
  ByteVector chunk_;
  std::unique_ptr<BlockSource> source_;
};

Status MendRegions(Comparer* comparer, unsigned thread, Regions* regions) {
  while (const std::optional<uint64_t> region = regions->Take(thread)) {
    RETURN_IF_ERROR(comparer->MendRegion(*region));
  }
  return Status();
}

void RunThread(const Difference& work, unsigned thread, Regions* regions) {
  Comparer comparer(work);
  Status status = comparer.Open();
  if (status.ok()) status = MendRegions(&comparer, thread, regions);
  // Behind the last block; once is enough.
  if (status.ok() && thread == 0 && regions->failure().ok()) status = comparer.MendTail();
  if (!status.ok()) regions->Fail(status);
}

}  // namespace

Status RestoreDifference(ChunkReader* chunks, const Naming& naming, const StoredDisk& disk,
                         const OpenImageSource& open_source, DiskImage* image, const Cancel* cancel,
                         Progress* progress) {
  progress->size_bytes.Set(disk.size_bytes);
  RETURN_IF_ERROR(CountAllocated(chunks, disk, cancel, progress));
  const Difference work{chunks, &naming, disk, &open_source, image, cancel, progress};
  const unsigned thread_count =
      std::clamp(std::thread::hardware_concurrency(), 1u, kThreadCountMax);
  Regions regions(disk.size_bytes, thread_count, &progress->position_bytes);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < thread_count; ++i) {
    threads.emplace_back([&work, i, &regions] { RunThread(work, i, &regions); });
  }
  for (std::thread& thread : threads) thread.join();
  RETURN_IF_ERROR(regions.failure());
  progress->position_bytes.Set(disk.size_bytes);
  return Status();
}

}  // namespace blockferry
