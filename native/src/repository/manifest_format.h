// The bytes of a manifest. Texts are a u16 size and UTF-8.
//
// Magic, version u32, flags u32, repository id, VM pseudonym (16 bytes), sequence u64,
// incarnation u64, number u64, lock-until u64, backup id, base backup id, point id, disk
// count u32, the disks, body size u32, body, signature size u32 (zero), and the keyed code of all
// that, and the BLAKE3 of all that. A disk: disk id, size u64, 1 or 0 as u8, root (zeroes when 0).
//
// With kFlagEncrypted the disk ids are empty, and the body is a seal (record_seal.h) and, sealed
// with everything before the body's size in clear, the disk ids as texts and the body itself.
#ifndef BLOCKFERRY_REPOSITORY_MANIFEST_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_MANIFEST_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace blockferry::manifest_format {

inline constexpr char kMagic[] = "BFMANIF\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kFlagEncrypted = 1;
inline constexpr size_t kPseudonymSize = 16;
inline constexpr size_t kCodeSize = 32;
inline constexpr size_t kDigestSize = 32;
inline constexpr size_t kFileIdSizeMax = 64;
inline constexpr size_t kDiskIdSizeMax = 255;
inline constexpr uint32_t kDiskCountMax = 4096;
inline constexpr uint32_t kBodySizeMax = 16 * 1024 * 1024;
inline constexpr size_t kSealedSizeMax =
    16 + kDiskCountMax * (2 + kDiskIdSizeMax) + kBodySizeMax + 16;
inline constexpr size_t kFixedSize = kMagicSize + 4 + 4 + 16 + kPseudonymSize + 4 * 8;
static_assert(kFixedSize == 80);
inline constexpr size_t kDiskEntrySizeMax = 2 + kDiskIdSizeMax + 8 + 1 + 32;
inline constexpr size_t kFileSizeMax = kFixedSize + 3 * (2 + kFileIdSizeMax) + 4 +
                                       kDiskCountMax * kDiskEntrySizeMax + 4 + kSealedSizeMax + 4 +
                                       kCodeSize + kDigestSize;

}  // namespace blockferry::manifest_format

#endif  // BLOCKFERRY_REPOSITORY_MANIFEST_FORMAT_H_
