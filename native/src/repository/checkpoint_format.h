// The bytes of a checkpoint: magic, version u32, point id, disk id (texts), size u64, 1 or 0 as u8
// and the base's root, next block u64, three counters u64, the state of the map, the ids of the
// packs that the session refers to, their number u32, and the BLAKE3 of all that.
//
// The state of a map: next index u64, path index u64, level count u8, and for each level the size
// u16 and the bytes of its partial node.
#ifndef BLOCKFERRY_REPOSITORY_CHECKPOINT_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_CHECKPOINT_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace blockferry::checkpoint_format {

inline constexpr char kMagic[] = "BFCHECK\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kDigestSize = 32;
// A million packs of 32 MiB; a session that refers to more goes on without a checkpoint.
inline constexpr size_t kFileSizeMax = 17 * 1024 * 1024;
inline constexpr size_t kPackCountMax = 1024 * 1024;

// A checkpoint is taken when a pack is full, and after this many blocks (1 GiB) that needed
// no new pack.
inline constexpr uint64_t kBlockInterval = 16384;

}  // namespace blockferry::checkpoint_format

#endif  // BLOCKFERRY_REPOSITORY_CHECKPOINT_FORMAT_H_
