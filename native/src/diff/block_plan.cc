#include "diff/block_plan.h"

#include <algorithm>

#include "repository/block_geometry.h"

namespace blockferry {
namespace {

BlockRun::Kind KindOf(bool allocated, bool changed) {
  if (!changed) return BlockRun::Kind::kKept;
  return allocated ? BlockRun::Kind::kData : BlockRun::Kind::kHole;
}

}  // namespace

BlockPlan::BlockPlan(BlockSource* source, const ChangedBlockMap* changed)
    : source_(source), changed_(changed) {}

Result<Extent> BlockPlan::ExtentAt(uint64_t offset_bytes) {
  const bool known = offset_bytes >= extent_.offset_bytes && offset_bytes < extent_.end_bytes();
  if (!known) {
    ASSIGN_OR_RETURN(extent_, source_->ExtentAt(offset_bytes));
    changed_->Mark(&extent_);
  }
  Extent rest = extent_;
  rest.size_bytes = extent_.end_bytes() - offset_bytes;
  rest.offset_bytes = offset_bytes;
  return rest;
}

Result<DiskTotals> BlockPlan::Count() {
  DiskTotals totals;
  for (uint64_t offset = 0; offset < source_->size_bytes();) {
    ASSIGN_OR_RETURN(const Extent extent, ExtentAt(offset));
    if (extent.allocated) totals.allocated_bytes += extent.size_bytes;
    if (extent.changed) totals.changed_bytes += extent.size_bytes;
    offset = extent.end_bytes();
  }
  if (!changed_->knows_something()) totals.changed_bytes = totals.allocated_bytes;
  return totals;
}

Result<std::optional<BlockRun>> BlockPlan::Next(uint64_t data_block_count_max) {
  const uint64_t size_bytes = source_->size_bytes();
  const uint64_t block_count = BlockCountOf(size_bytes);
  if (next_block_ >= block_count) return std::optional<BlockRun>();
  const uint64_t offset = next_block_ * kBlockSize;
  ASSIGN_OR_RETURN(Extent extent, ExtentAt(offset));

  // Whole blocks of one state; the last block of the disk is whole at any size.
  uint64_t end_block = extent.end_bytes() / kBlockSize;
  if (extent.end_bytes() == size_bytes) end_block = block_count;
  bool data_changed = extent.changed;
  bool data = extent.allocated;
  if (end_block == next_block_) {
    end_block = next_block_ + 1;
    const uint64_t end_bytes = offset + BlockSizeAt(size_bytes, next_block_);
    while (extent.end_bytes() < end_bytes) {
      ASSIGN_OR_RETURN(extent, ExtentAt(extent.end_bytes()));
      data_changed = data_changed || extent.changed;
      data = data || extent.allocated;
    }
  }
  BlockRun run{KindOf(data, data_changed), next_block_, end_block};
  if (run.kind == BlockRun::Kind::kData) {
    run.end_block = next_block_ + std::min(end_block - next_block_, data_block_count_max);
  }
  next_block_ = run.end_block;
  return std::optional<BlockRun>(run);
}

}  // namespace blockferry
