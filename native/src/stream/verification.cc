#include "stream/verification.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <thread>
#include <utility>

#include "repository/block_geometry.h"
#include "repository/map_node.h"
#include "stream/batch_queue.h"

namespace blockferry {
namespace {

constexpr unsigned kThreadCountMax = 4;
constexpr size_t kBatchBlockCount = 8;
constexpr size_t kOpenBatchesPerThread = 4;
// Others are read again wherever they are named.
constexpr size_t kDamagedNamesMax = 65536;

bool IsDamage(const Status& status) {
  return status.Is(reason::kBlockCorrupt) || status.Is(reason::kChunkMissing);
}

}  // namespace

// One disk: walks its map and feeds the threads that prove its blocks.
class DiskVerifier {
 public:
  DiskVerifier(Verification* all, const StoredDisk& disk, const Cancel* cancel, Progress* progress)
      : all_(all),
        disk_(disk),
        block_count_(BlockCountOf(disk.size_bytes)),
        cancel_(cancel),
        progress_(progress),
        thread_count_(std::clamp(std::thread::hardware_concurrency(), 1u, kThreadCountMax)),
        queue_(thread_count_ * kOpenBatchesPerThread) {}

  Result<DamageReport> Run() {
    progress_->size_bytes.Set(disk_.size_bytes);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < thread_count_; ++i) {
      threads.emplace_back([this] { ProveBatches(); });
    }
    Status walked;
    if (disk_.root) walked = WalkNode(MapLevelCount(block_count_) - 1, 0, *disk_.root);
    if (walked.ok() && !entries_.empty()) queue_.Push(std::move(entries_));
    if (!walked.ok()) queue_.Fail(walked);
    queue_.Close();
    for (std::thread& thread : threads) thread.join();
    RETURN_IF_ERROR(queue_.failure());
    progress_->position_bytes.Set(disk_.size_bytes);
    if (damaged_bytes_ == 0) {
      for (const Digest& name : nodes_) all_->SetProven(name);
    }
    return Report();
  }

 private:
  // ---- The map

  Status WalkNode(unsigned level, uint64_t start, const Digest& name) {
    RETURN_IF_ERROR(cancel_->Check());
    const uint64_t span = std::min(MapNodeSpan(level), block_count_ - start);
    // At the ragged end of a disk a node must have fewer children than elsewhere.
    if (span == MapNodeSpan(level) && all_->IsProven(name)) return {};
    std::array<std::byte, kMapNodeSizeMax> buffer;
    const Result<size_t> size = all_->chunks_->ReadNode(name, buffer);
    if (IsDamage(size.status())) return NoteBlocks(start, span, size.status());
    RETURN_IF_ERROR(size);
    const uint64_t child_span = MapNodeSpan(level) / kMapFanOut;
    MapNode node;
    if (!DecodeMapNode(Bytes(buffer).first(*size),
                       static_cast<unsigned>((span + child_span - 1) / child_span), &node)) {
      return NoteBlocks(start, span,
                        Status(reason::kBlockCorrupt,
                               "node " + HexOf(name) + " of the disk map does not fit the disk"));
    }
    nodes_.push_back(name);
    for (unsigned child = 0; child < kMapFanOut; ++child) {
      if (!node.Has(child)) continue;
      const uint64_t at = start + child * child_span;
      RETURN_IF_ERROR(level == 0 ? Feed({at, node.names[child]})
                                 : WalkNode(level - 1, at, node.names[child]));
    }
    return {};
  }

  Status Feed(const MapEntry& entry) {
    progress_->allocated_bytes.Add(BlockSizeAt(disk_.size_bytes, entry.index));
    entries_.push_back(entry);
    if (entries_.size() < kBatchBlockCount) return {};
    return queue_.Push(std::exchange(entries_, {})) ? Status() : queue_.failure();
  }

  // ---- Its blocks, on threads

  void ProveBatches() {
    ByteVector plain(kBlockSize);
    while (Batch* batch = queue_.Take()) {
      for (const MapEntry& entry : batch->entries) {
        const Status status = Prove(entry, plain);
        if (!status.ok()) return queue_.Fail(status);
      }
      queue_.Finish(batch, &progress_->position_bytes);
    }
  }

  Status Prove(const MapEntry& entry, MutableBytes plain) {
    RETURN_IF_ERROR(cancel_->Check());
    progress_->block_count.Add(1);
    if (all_->IsProven(entry.name)) return {};
    if (const Status* damage = all_->DamageOf(entry.name)) {
      return NoteBlocks(entry.index, 1, *damage);
    }
    uint64_t stored_size = 0;
    const size_t size = BlockSizeAt(disk_.size_bytes, entry.index);
    const Status read = all_->chunks_->ReadChunk(entry.name, plain.first(size),
                                                 Proof::kPlainAndStored, &stored_size);
    progress_->read_bytes.Add(stored_size);
    RETURN_IF_ERROR(all_->rate_limit_.Take(stored_size, *cancel_));
    if (read.ok()) {
      all_->SetProven(entry.name);
      return {};
    }
    if (!IsDamage(read)) return read;
    all_->SetDamaged(entry.name, read);
    return NoteBlocks(entry.index, 1, read);
  }

  // ---- What is damaged

  Status NoteBlocks(uint64_t index, uint64_t count, const Status& damage) {
    const uint64_t offset = index * kBlockSize;
    const uint64_t end = std::min((index + count) * kBlockSize, disk_.size_bytes);
    std::lock_guard lock(mutex_);
    damaged_bytes_ += end - offset;
    const auto after = ranges_.lower_bound(offset);
    if (after != ranges_.begin()) {
      DamagedRange& before = std::prev(after)->second;
      if (before.offset + before.size == offset) {
        before.size = end - before.offset;
        if (after != ranges_.end() && after->first == end) {
          before.size += after->second.size;
          ranges_.erase(after);
        }
        return {};
      }
    }
    if (ranges_.size() < kDamagedRangesMax) ranges_[offset] = {offset, end - offset, damage};
    return {};
  }

  DamageReport Report() const {
    DamageReport report;
    report.damaged_bytes = damaged_bytes_;
    for (const auto& [offset, range] : ranges_) {
      // A block that came after its neighbour did not see it.
      const bool is_next = !report.ranges.empty() &&
                           report.ranges.back().offset + report.ranges.back().size == offset;
      if (is_next) {
        report.ranges.back().size += range.size;
      } else {
        report.ranges.push_back(range);
      }
    }
    return report;
  }

  Verification* all_;
  const StoredDisk disk_;
  const uint64_t block_count_;
  const Cancel* cancel_;
  Progress* progress_;
  const unsigned thread_count_;
  BatchQueue queue_;
  std::vector<MapEntry> entries_;
  std::vector<Digest> nodes_;  // Those that were read.
  std::mutex mutex_;
  uint64_t damaged_bytes_ = 0;
  std::map<uint64_t, DamagedRange> ranges_;  // By offset.
};

Verification::Verification(ChunkReader* chunks, uint64_t chunk_count,
                           const VerificationLimits& limits)
    : chunks_(chunks),
      rate_limit_(limits.bytes_per_second),
      proven_(std::min<uint64_t>(chunk_count, limits.proven_memory / NameSet::MemoryFor(1))) {}

Result<DamageReport> Verification::VerifyDisk(const StoredDisk& disk, const Cancel* cancel,
                                              Progress* progress) {
  return DiskVerifier(this, disk, cancel, progress).Run();
}

bool Verification::IsProven(const Digest& name) {
  std::lock_guard lock(mutex_);
  return proven_.Has(name);
}

void Verification::SetProven(const Digest& name) {
  std::lock_guard lock(mutex_);
  if (!proven_.full()) proven_.Insert(name);
}

const Status* Verification::DamageOf(const Digest& name) {
  std::lock_guard lock(mutex_);
  const auto found = damaged_.find(name);
  return found == damaged_.end() ? nullptr : &found->second;
}

void Verification::SetDamaged(const Digest& name, const Status& damage) {
  std::lock_guard lock(mutex_);
  if (damaged_.size() < kDamagedNamesMax) damaged_.emplace(name, damage);
}

}  // namespace blockferry
