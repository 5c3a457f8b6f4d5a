// The bytes of a key slot.
#ifndef BLOCKFERRY_REPOSITORY_KEY_SLOT_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_KEY_SLOT_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace blockferry::key_slot_format {

// Magic, version u32, kind u32, repository id, slot id (8 bytes), salt, scrypt's log2 N, r and p as
// u32 (zeroes for a key), zero u32, label as a text; then the naming key and the record key, sealed
// with all of that in clear; then the BLAKE3 of everything before.
inline constexpr char kMagic[] = "BFKEYSL\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kSlotIdSize = 8;
inline constexpr size_t kSaltSize = 32;
inline constexpr size_t kLabelSizeMax = 200;
inline constexpr size_t kFileSizeMax = 1024;
inline constexpr size_t kPassphraseSizeMax = 1024;
inline constexpr size_t kKeySize = 32;
inline constexpr char kKeyContext[] = "Blockferry v1 key slot";

inline constexpr char kKeysFolder[] = "keys";
inline constexpr char kKeySuffix[] = ".key";
inline constexpr char kNewKeySuffix[] = ".key-new";
inline constexpr char kRemovedKeySuffix[] = ".key-removed";

}  // namespace blockferry::key_slot_format

#endif  // BLOCKFERRY_REPOSITORY_KEY_SLOT_FORMAT_H_
