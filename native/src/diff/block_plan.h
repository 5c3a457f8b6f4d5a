// What has to be done with each block of a disk, cheapest answer first: a hole is left
// out of the map, an unmarked block is kept from the base, the rest is read.
//
// Extents are bytes and blocks are 64 KiB: a block is read when any byte of it may have
// changed and any byte of it is data.
#ifndef BLOCKFERRY_DIFF_BLOCK_PLAN_H_
#define BLOCKFERRY_DIFF_BLOCK_PLAN_H_

#include <cstdint>
#include <optional>

#include "diff/changed_block_map.h"
#include "source/block_source.h"

namespace blockferry {

// Blocks [first_block, end_block) with one answer.
struct BlockRun {
  enum class Kind { kHole, kKept, kData };
  Kind kind = Kind::kHole;
  uint64_t first_block = 0;
  uint64_t end_block = 0;
};

struct DiskTotals {
  uint64_t allocated_bytes = 0;
  uint64_t changed_bytes = 0;
};

class BlockPlan {
 public:
  // `source` and `changed` outlive the plan. Without a base nothing can be kept, so a
  // map that knows something needs one.
  BlockPlan(BlockSource* source, const ChangedBlockMap* changed);

  // One pass over all extents.
  Result<DiskTotals> Count();

  // Goes on at this block; blocks before it are done.
  void StartAt(uint64_t block) { next_block_ = block; }

  // The next run in ascending order; absent at the end of the disk. Two runs in a row
  // may be of one kind; a run of data has at most `data_block_count_max` blocks.
  Result<std::optional<BlockRun>> Next(uint64_t data_block_count_max = UINT64_MAX);

 private:
  Result<Extent> ExtentAt(uint64_t offset_bytes);

  BlockSource* source_;
  const ChangedBlockMap* changed_;
  uint64_t next_block_ = 0;
  Extent extent_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_DIFF_BLOCK_PLAN_H_
