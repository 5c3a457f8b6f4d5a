#include "diff/changed_block_map.h"

#include <algorithm>
#include <string>

namespace blockferry {
namespace {

Status Refuse(size_t index, uint64_t offset_bytes, uint64_t size_bytes, const std::string& what) {
  return Status(reason::kChangedBlocksInvalid,
                "read the list of changed blocks: entry " + std::to_string(index) + " (offset " +
                    std::to_string(offset_bytes) + ", size " + std::to_string(size_bytes) + ") " +
                    what + "; make the list anew or back up without it",
                {{"entry_index", std::to_string(index)},
                 {"offset_bytes", std::to_string(offset_bytes)},
                 {"size_bytes", std::to_string(size_bytes)}});
}

}  // namespace

ChangedBlockMap ChangedBlockMap::All() { return ChangedBlockMap(Kind::kAll); }

ChangedBlockMap ChangedBlockMap::FromSource() { return ChangedBlockMap(Kind::kSource); }

Result<ChangedBlockMap> ChangedBlockMap::FromExtents(const std::vector<uint64_t>& pairs,
                                                     uint64_t disk_size_bytes) {
  if (pairs.size() % 2 != 0) {
    return Status(
        reason::kChangedBlocksInvalid,
        "read the list of changed blocks: the last offset has no size; make the list anew");
  }
  ChangedBlockMap map(Kind::kExtents);
  map.ranges_.reserve(pairs.size() / 2);
  uint64_t end_bytes = 0;
  for (size_t i = 0; i < pairs.size(); i += 2) {
    const uint64_t offset = pairs[i];
    const uint64_t size = pairs[i + 1];
    if (size == 0) return Refuse(i / 2, offset, size, "is empty");
    if (offset < end_bytes) return Refuse(i / 2, offset, size, "begins before the last one ends");
    if (offset > disk_size_bytes || size > disk_size_bytes - offset) {
      return Refuse(i / 2, offset, size, "passes the end of the disk");
    }
    end_bytes = offset + size;
    map.ranges_.push_back({offset, end_bytes});
  }
  return map;
}

void ChangedBlockMap::Mark(Extent* extent) const {
  if (kind_ == Kind::kSource) return;
  extent->changed = true;
  if (kind_ == Kind::kAll) return;
  const auto range = std::upper_bound(
      ranges_.begin(), ranges_.end(), extent->offset_bytes,
      [](uint64_t offset, const Range& candidate) { return offset < candidate.end_bytes; });
  extent->changed = range != ranges_.end() && range->offset_bytes <= extent->offset_bytes;
  if (range == ranges_.end()) return;
  const uint64_t end = extent->changed ? range->end_bytes : range->offset_bytes;
  extent->size_bytes = std::min(extent->end_bytes(), end) - extent->offset_bytes;
}

}  // namespace blockferry
