// What the index knows of one record.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_ENTRY_H_
#define BLOCKFERRY_REPOSITORY_INDEX_ENTRY_H_

#include <compare>
#include <cstdint>

#include "core/endian.h"
#include "repository/record.h"

namespace blockferry {

// The first half of a name. Names are keyed digests, so nobody can choose two with the same half,
// and a reader compares the whole name with the record's own header.
struct IndexKey {
  uint64_t low = 0;
  uint64_t high = 0;

  static IndexKey Of(const Digest& name) {
    return {LoadLe<uint64_t>(name.data()), LoadLe<uint64_t>(name.data() + 8)};
  }
  // What pages and groups are told apart by.
  uint32_t fence() const { return static_cast<uint32_t>(low >> 32); }
  auto operator<=>(const IndexKey&) const = default;
};

struct IndexEntry {
  IndexKey key;
  uint32_t pack = 0;
  uint32_t offset = 0;
  uint32_t stored_size = 0;
  RecordType type = RecordType::kChunk;

  auto operator<=>(const IndexEntry&) const = default;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_ENTRY_H_
