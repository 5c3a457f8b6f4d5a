#include "stream/restore_disk.h"

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "repository/block_geometry.h"
#include "repository/map_reader.h"
#include "stream/batch_queue.h"

namespace blockferry {
namespace {

constexpr unsigned kThreadCountMax = 4;
constexpr size_t kBatchBlockCount = 8;
constexpr size_t kOpenBatchesPerThread = 4;

struct Restore {
  ChunkReader* chunks;
  StoredDisk disk;
  DiskTarget* target;
  const Cancel* cancel;
  Progress* progress;
};

// Reads the blocks of a batch side by side and writes each stretch of neighbours at once: a kernel
// locks a file for every write, and takes larger pages for larger ones.
class BatchRestorer {
 public:
  explicit BatchRestorer(const Restore* restore)
      : restore_(restore), bytes_(kBatchBlockCount * kBlockSize) {}

  Status Run(const Batch& batch) {
    for (const MapEntry& entry : batch.entries) {
      if (run_size_ > 0 && entry.index * kBlockSize != run_offset_bytes_ + run_size_) {
        RETURN_IF_ERROR(WriteRun());
      }
      if (run_size_ == 0) run_offset_bytes_ = entry.index * kBlockSize;
      RETURN_IF_ERROR(ReadBlock(entry));
    }
    return WriteRun();
  }

 private:
  Status ReadBlock(const MapEntry& entry) {
    RETURN_IF_ERROR(restore_->cancel->Check());
    const size_t size = BlockSizeAt(restore_->disk.size_bytes, entry.index);
    uint64_t stored_size = 0;
    RETURN_IF_ERROR(restore_->chunks->ReadChunk(
        entry.name, MutableBytes(bytes_).subspan(run_size_, size), Proof::kPlain, &stored_size));
    run_size_ += size;
    restore_->progress->read_bytes.Add(stored_size);
    restore_->progress->block_count.Add(1);
    return Status();
  }

  Status WriteRun() {
    const Bytes run = Bytes(bytes_).first(std::exchange(run_size_, 0));
    if (run.empty()) return Status();
    RETURN_IF_ERROR(restore_->target->Write(run_offset_bytes_, run));
    restore_->progress->stored_bytes.Add(run.size());
    return Status();
  }

  const Restore* restore_;
  ByteVector bytes_;
  uint64_t run_offset_bytes_ = 0;
  size_t run_size_ = 0;
};

void RunWorker(const Restore& restore, BatchQueue* queue) {
  BatchRestorer restorer(&restore);
  while (Batch* batch = queue->Take()) {
    const Status status = restorer.Run(*batch);
    if (!status.ok()) return queue->Fail(status);
    queue->Finish(batch, &restore.progress->position_bytes);
  }
}

// Walks the map and feeds the workers.
Status FeedBlocks(const Restore& restore, MapReader* map, BatchQueue* queue) {
  std::vector<MapEntry> entries;
  for (uint64_t at = 0; at < map->block_count();) {
    RETURN_IF_ERROR(restore.cancel->Check());
    ASSIGN_OR_RETURN(const std::optional<MapEntry> entry, map->Next(at));
    if (!entry.has_value()) break;
    entries.push_back(*entry);
    at = entry->index + 1;
    if (entries.size() < kBatchBlockCount) continue;
    if (!queue->Push(std::exchange(entries, {}))) return Status();
  }
  if (!entries.empty()) queue->Push(std::move(entries));
  return Status();
}

}  // namespace

Status CountAllocated(ChunkReader* chunks, const StoredDisk& disk, const Cancel* cancel,
                      Progress* progress) {
  MapReader map(chunks, disk.root, BlockCountOf(disk.size_bytes));
  uint64_t allocated_bytes = 0;
  for (uint64_t at = 0; at < map.block_count();) {
    RETURN_IF_ERROR(cancel->Check());
    ASSIGN_OR_RETURN(const std::optional<MapEntry> entry, map.Next(at));
    if (!entry.has_value()) break;
    allocated_bytes += BlockSizeAt(disk.size_bytes, entry->index);
    at = entry->index + 1;
  }
  progress->allocated_bytes.Set(allocated_bytes);
  return Status();
}

Status RestoreDisk(ChunkReader* chunks, const StoredDisk& disk, DiskTarget* target,
                   const Cancel* cancel, Progress* progress) {
  const Restore restore{chunks, disk, target, cancel, progress};
  progress->size_bytes.Set(disk.size_bytes);
  RETURN_IF_ERROR(CountAllocated(chunks, disk, cancel, progress));
  progress->changed_bytes.Set(progress->allocated_bytes.value());
  MapReader map(chunks, disk.root, BlockCountOf(disk.size_bytes));

  const unsigned thread_count =
      std::clamp(std::thread::hardware_concurrency(), 1u, kThreadCountMax);
  BatchQueue queue(thread_count * kOpenBatchesPerThread);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < thread_count; ++i) {
    threads.emplace_back([&restore, &queue] { RunWorker(restore, &queue); });
  }
  const Status fed = FeedBlocks(restore, &map, &queue);
  if (!fed.ok()) queue.Fail(fed);
  queue.Close();
  for (std::thread& thread : threads) thread.join();
  RETURN_IF_ERROR(queue.failure());
  progress->position_bytes.Set(disk.size_bytes);
  return Status();
}

}  // namespace blockferry
