#include "stream/read_ahead.h"

#include <algorithm>

#include "repository/block_geometry.h"

namespace blockferry {
namespace {

constexpr size_t kBufferCount = kReadCountMax + 1;
constexpr uint64_t kReadBlocksMax = kReadSizeBytesMax / kBlockSize;

// Runs without data cost no buffer, but a fragmented disk must not fill the memory.
constexpr size_t kPendingCountMax = 256;

}  // namespace

ReadAhead::ReadAhead(BlockSource* source, BlockPlan* plan)
    : source_(source), plan_(plan), buffers_(kBufferCount * kReadSizeBytesMax) {}

Result<std::optional<ReadRun>> ReadAhead::Next() {
  RETURN_IF_ERROR(Fill());
  if (pending_.empty()) return std::optional<ReadRun>();
  const Pending next = pending_.front();
  pending_.pop_front();
  if (!next.buffer.empty()) {
    RETURN_IF_ERROR(source_->Await());
    --read_count_;
  }
  return std::optional<ReadRun>(ReadRun{next.run, next.buffer});
}

Status ReadAhead::Fill() {
  while (read_count_ < kReadCountMax && pending_.size() < kPendingCountMax) {
    if (!rest_.has_value()) {
      if (plan_ended_) return Status();
      ASSIGN_OR_RETURN(rest_, plan_->Next());
      plan_ended_ = !rest_.has_value();
      if (plan_ended_) return Status();
    }
    BlockRun run = *rest_;
    if (run.kind != BlockRun::Kind::kData) {
      pending_.push_back({run, {}});
      rest_.reset();
      continue;
    }
    run.end_block = std::min(run.end_block, run.first_block + kReadBlocksMax);
    rest_->first_block = run.end_block;
    if (rest_->first_block == rest_->end_block) rest_.reset();
    RETURN_IF_ERROR(Submit(run));
  }
  return Status();
}

Status ReadAhead::Submit(const BlockRun& run) {
  const uint64_t offset = run.first_block * kBlockSize;
  const uint64_t end = std::min(run.end_block * kBlockSize, source_->size_bytes());
  const MutableBytes buffer =
      MutableBytes(buffers_).subspan(next_buffer_ * kReadSizeBytesMax, end - offset);
  next_buffer_ = (next_buffer_ + 1) % kBufferCount;
  RETURN_IF_ERROR(source_->Submit(offset, buffer));
  pending_.push_back({run, buffer});
  ++read_count_;
  return Status();
}

}  // namespace blockferry
