// A changed block map answers one question for the data path: which bytes of a disk may
// differ from the base?
//
// It is filled on one thread before the first read and is read-only after that, so every
// stage may ask without a lock. It is a hint: what it does not mark is taken from the
// base without being read.
#ifndef BLOCKFERRY_DIFF_CHANGED_BLOCK_MAP_H_
#define BLOCKFERRY_DIFF_CHANGED_BLOCK_MAP_H_

#include <cstdint>
#include <vector>

#include "core/status.h"
#include "source/block_source.h"

namespace blockferry {

class ChangedBlockMap {
 public:
  // Nothing is known: everything may have changed.
  static ChangedBlockMap All();
  // The extents of the source carry the marks.
  static ChangedBlockMap FromSource();
  // Pairs of offset and size in bytes. CHANGED_BLOCKS_INVALID unless they ascend, do not
  // overlap, are not empty and lie inside the disk.
  static Result<ChangedBlockMap> FromExtents(const std::vector<uint64_t>& pairs,
                                             uint64_t disk_size_bytes);

  bool knows_something() const { return kind_ != Kind::kAll; }

  // Sets the mark of an extent of the source, and shortens it to where the mark is the
  // same for all of its bytes.
  void Mark(Extent* extent) const;

 private:
  enum class Kind { kAll, kSource, kExtents };
  struct Range {
    uint64_t offset_bytes;
    uint64_t end_bytes;
  };

  explicit ChangedBlockMap(Kind kind) : kind_(kind) {}

  Kind kind_;
  std::vector<Range> ranges_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_DIFF_CHANGED_BLOCK_MAP_H_
