// The bytes of a map node: a bitmap of the children that exist (u64), then their names, in order.
#ifndef BLOCKFERRY_REPOSITORY_MAP_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_MAP_FORMAT_H_

#include <cstddef>

namespace blockferry {

inline constexpr unsigned kMapFanOut = 64;
inline constexpr size_t kMapBitmapSize = 8;
inline constexpr size_t kMapNameSize = 32;
inline constexpr size_t kMapNodeSizeMax = kMapBitmapSize + kMapFanOut * kMapNameSize;
static_assert(kMapNodeSizeMax == 2056);
// 2^53 bytes are 2^37 blocks, and 64^7 = 2^42.
inline constexpr unsigned kMapLevelsMax = 7;

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MAP_FORMAT_H_
