// How a disk is cut into blocks. Block i covers the bytes from i * 64 KiB; the last block of a disk
// is as short as the disk makes it.
#ifndef BLOCKFERRY_REPOSITORY_BLOCK_GEOMETRY_H_
#define BLOCKFERRY_REPOSITORY_BLOCK_GEOMETRY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace blockferry {

#ifdef BLOCKFERRY_BLOCK_SIZE
// Only bench/block_size.sh builds with another size, to measure it.
inline constexpr uint32_t kBlockSize = BLOCKFERRY_BLOCK_SIZE;
#else
inline constexpr uint32_t kBlockSize = 64 * 1024;
#endif
// Blocks that change a little are stored as the pages that changed.
inline constexpr size_t kPageSize = 4096;
inline constexpr size_t kPageCountMax = kBlockSize / kPageSize;
static_assert(kBlockSize % kPageSize == 0);
// The border to JavaScript carries sizes in a number.
inline constexpr uint64_t kDiskSizeMax = uint64_t{1} << 53;

constexpr uint64_t BlockCountOf(uint64_t disk_size) {
  return disk_size / kBlockSize + (disk_size % kBlockSize != 0 ? 1 : 0);
}

// REQUIRES: index < BlockCountOf(disk_size).
constexpr size_t BlockSizeAt(uint64_t disk_size, uint64_t index) {
  return static_cast<size_t>(std::min<uint64_t>(kBlockSize, disk_size - index * kBlockSize));
}

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_BLOCK_GEOMETRY_H_
