// The bytes of a pack: header, records, table, footer. See docs/repository-format.md.
#ifndef BLOCKFERRY_REPOSITORY_PACK_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_PACK_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "repository/block_geometry.h"

namespace blockferry::pack_format {

inline constexpr char kHeaderMagic[] = "BFPACK\r\n";
inline constexpr char kFooterMagic[] = "BFPKEND\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kHeaderMagic) == kMagicSize + 1 && sizeof(kFooterMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;

// Header: magic, version u32, zero u32, repository id, pack id, who wrote it padded with zeroes,
// and the first 16 bytes of the BLAKE3 of all that.
inline constexpr size_t kIdSize = 16;
inline constexpr size_t kWriterSize = 64;
inline constexpr size_t kShortDigestSize = 16;
inline constexpr size_t kHeaderSize =
    kMagicSize + 4 + 4 + kIdSize + kIdSize + kWriterSize + kShortDigestSize;
static_assert(kHeaderSize == 128);

// Record: the first 16 bytes of the BLAKE3 of everything that follows in this record; type u8,
// codec u8, flags u8, zero u8, plain size u32, stored size u32, zero u32, name, the seal of an
// encrypted record or 16 zero bytes (record_seal.h); then the stored bytes.
inline constexpr uint8_t kFlagEncrypted = 1;
inline constexpr size_t kNameSize = 32;
inline constexpr size_t kRecordSealSize = 16;
inline constexpr size_t kRecordHeaderSize =
    kShortDigestSize + 4 + 4 + 4 + 4 + kNameSize + kRecordSealSize;
static_assert(kRecordHeaderSize == 80);
// Encryption adds a tag, a patch its head; 1 KiB leaves room for either.
inline constexpr size_t kStoredSizeMax = kBlockSize + 1024;

// Table entry: name, offset u32 of the record in the pack, plain size u32, stored size u32, type
// u8, codec u8, flags u8, zero u8.
inline constexpr size_t kEntrySize = kNameSize + 4 + 4 + 4 + 4;
static_assert(kEntrySize == 48);
// Behind the entries: the base's name for each entry of a patch, in their order. So what keeps what
// is known from the tables alone.
inline constexpr size_t kBaseSize = kNameSize;

// Footer: table offset u64, entry count u32, version u32, pack id, the first 24 bytes of the BLAKE3
// of the table and the footer up to here, magic.
inline constexpr size_t kFooterDigestSize = 24;
inline constexpr size_t kFooterDigestedSize = 8 + 4 + 4 + kIdSize;
inline constexpr size_t kFooterSize = kFooterDigestedSize + kFooterDigestSize + kMagicSize;
static_assert(kFooterSize == 64);

// A pack is sealed when it has reached either; the second bounds the table of tiny records.
inline constexpr uint64_t kTargetSize = 32 * 1024 * 1024;
inline constexpr size_t kEntryCountMax = 65536;
inline constexpr uint64_t kPackSizeMax = kTargetSize + 2 * (kRecordHeaderSize + kStoredSizeMax) +
                                         kEntryCountMax * (kEntrySize + kBaseSize) + kFooterSize;

}  // namespace blockferry::pack_format

#endif  // BLOCKFERRY_REPOSITORY_PACK_FORMAT_H_
