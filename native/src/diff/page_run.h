// Which pages of a block have to be written, as runs of neighbours. A page is 4 KiB, the last one
// of a disk as short as the disk makes it.
#ifndef BLOCKFERRY_DIFF_PAGE_RUN_H_
#define BLOCKFERRY_DIFF_PAGE_RUN_H_

#include <cstddef>

#include "core/bytes.h"
#include "repository/block_geometry.h"

namespace blockferry {

// Bytes of a block; a size of 0 says that there is no run any more.
struct PageRun {
  size_t offset = 0;
  size_t size = 0;

  size_t end() const { return offset + size; }
};

// The first run of pages at or after `from` in which the two differ.
// REQUIRES: both are of one size, `from` is the beginning of a page or their end.
PageRun NextDifferentRun(Bytes one, Bytes other, size_t from);

// The first run of pages at or after `from` that are not all zeroes. REQUIRES: as above.
PageRun NextNonZeroRun(Bytes bytes, size_t from);

}  // namespace blockferry

#endif  // BLOCKFERRY_DIFF_PAGE_RUN_H_
