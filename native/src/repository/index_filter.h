// Which bits of a group's filter belong to a name. Six bits in one line of the processor's cache,
// all taken from the second half of the key: the first half has led to the group already.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_FILTER_H_
#define BLOCKFERRY_REPOSITORY_INDEX_FILTER_H_

#include "repository/index_entry.h"
#include "repository/index_format.h"

namespace blockferry::index_filter {

using namespace index_format;

// Calls `visit` with the byte in the directory page and the bit in that byte, six times at most.
template <typename Visit>
bool ForEachBit(const IndexKey& key, Visit visit) {
  const size_t line = ((key.high >> kLineShift) * kLineCount) >> kLineBits;
  uint64_t rest = key.high;
  for (unsigned i = 0; i < kProbeCount; ++i, rest >>= kProbeBits) {
    const size_t bit = rest & ((1u << kProbeBits) - 1);
    const size_t byte = kFilterOffset + line * kLineSize + bit / 8;
    if (!visit(byte, static_cast<std::byte>(1 << bit % 8))) return false;
  }
  return true;
}

inline void Add(const IndexKey& key, std::byte* directory) {
  ForEachBit(key, [&](size_t byte, std::byte bit) {
    directory[byte] |= bit;
    return true;
  });
}

// False when the name is not in the group.
inline bool Passes(const IndexKey& key, const std::byte* directory) {
  return ForEachBit(
      key, [&](size_t byte, std::byte bit) { return (directory[byte] & bit) != std::byte{0}; });
}

}  // namespace blockferry::index_filter

#endif  // BLOCKFERRY_REPOSITORY_INDEX_FILTER_H_
