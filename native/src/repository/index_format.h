// The bytes of an index file: a header page, groups of pages, the packs that the file covers, the
// groups' fences, a footer. See docs/repository-format.md.
//
// The entries are sorted by name. Names are keyed digests and therefore spread evenly, so that the
// filter of a group is found by the order of names, too, and a file is written in one pass without
// holding more of it than one group.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_FORMAT_H_
#define BLOCKFERRY_REPOSITORY_INDEX_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace blockferry::index_format {

inline constexpr char kMagic[] = "BFINDEX\n";
inline constexpr char kFooterMagic[] = "BFIDXEN\n";
inline constexpr size_t kMagicSize = 8;
static_assert(sizeof(kMagic) == kMagicSize + 1 && sizeof(kFooterMagic) == kMagicSize + 1);
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kIdSize = 16;      // Of a repository and of a pack.
inline constexpr size_t kFileIdSize = 8;   // Random; also the file's name in hex.
inline constexpr size_t kDigestSize = 16;  // The first bytes of a BLAKE3.
inline constexpr char kFolder[] = "index";
inline constexpr char kSuffix[] = ".index";
inline constexpr char kNewSuffix[] = ".index-new";

// One read of the system, and one page of its cache, for each page.
inline constexpr size_t kPageSize = 4096;

// The digest of a page is that of its 4096 bytes with zeroes in its place: whole chunks of BLAKE3
// are hashed side by side, in half the time of 4080 bytes.

// Header page: digest, magic, version u32, zero u32, repository id, file
// id, zeroes.

// Every other page starts with: digest, file id, number of the page u32
// (from 0, behind the header page), number of entries u16, kind u16.
inline constexpr size_t kPageHeaderSize = kDigestSize + kFileIdSize + 4 + 2 + 2;
static_assert(kPageHeaderSize == 32);
inline constexpr uint16_t kEntryPage = 1;
inline constexpr uint16_t kDirectoryPage = 2;

// Entry: the first 16 bytes of the name as two u64, number of the pack in this file u32, offset of
// the record u32, stored size and type u32. Sorted by the two numbers, then by pack and offset.
inline constexpr size_t kEntrySize = 28;
inline constexpr size_t kPageEntryCount = (kPageSize - kPageHeaderSize) / kEntrySize;
static_assert(kPageEntryCount == 145);
inline constexpr uint32_t kStoredSizeMask = 0xffffff;
inline constexpr unsigned kTypeShift = 24;

// Group: up to 24 entry pages, all but the last group exactly so many, and a directory page. That
// has the fences of the entry pages, the upper half of the first u64 of each one's first entry, and
// a filter of 62 lines of 64 bytes: 9.1 bits for each name. With six bits set for each name 1.4 %
// of the names that are not there pass it (measured).
inline constexpr size_t kGroupPageCount = 24;
inline constexpr size_t kGroupEntryCount = kGroupPageCount * kPageEntryCount;
inline constexpr size_t kFenceSize = 4;
inline constexpr size_t kFilterOffset = kPageHeaderSize + kGroupPageCount * kFenceSize;
inline constexpr size_t kLineSize = 64;
inline constexpr size_t kLineCount = (kPageSize - kFilterOffset) / kLineSize;
static_assert(kFilterOffset == 128 && kLineCount == 62);
inline constexpr unsigned kProbeCount = 6;
inline constexpr unsigned kProbeBits = 9;  // 512 bits of a line.
inline constexpr unsigned kLineShift = kProbeCount * kProbeBits;
inline constexpr unsigned kLineBits = 64 - kLineShift;
static_assert(8 * kLineSize == 1 << kProbeBits);

// Pack: id, size of the pack file u32, chunk count u32, entry count u32, zero u32.
inline constexpr size_t kPackSize = kIdSize + 4 + 4 + 4 + 4;
static_assert(kPackSize == 32);

// Footer: entry count u64, entry page count u32, pack count u32, version u32, zero u32, repository
// id, file id, zeroes, the BLAKE3 of the packs, the groups' fences and the footer up to here,
// magic.
inline constexpr size_t kFooterReservedSize = 40;
inline constexpr size_t kFooterDigestedSize =
    8 + 4 + 4 + 4 + 4 + kIdSize + kFileIdSize + kFooterReservedSize;
inline constexpr size_t kFooterSize = kFooterDigestedSize + 32 + kMagicSize;
static_assert(kFooterSize == 128);

// Files of one size class, a factor of four, are merged when there are so many of them; more than
// the second number are not merged at once.
inline constexpr size_t kMergeCountMin = 4;
inline constexpr size_t kMergeCountMax = 16;
// A folder with more files than that is not ours to sort out: the rest is not read.
inline constexpr size_t kFileCountMax = 256;
// So many new packs are worth a file of their own. Fewer are read from their tables by the next
// program that opens the repository: 64 take 15 ms from the system's cache (measured), and about a
// second from a disk that has to seek for each.
inline constexpr size_t kNewPackCountMin = 64;

}  // namespace blockferry::index_format

#endif  // BLOCKFERRY_REPOSITORY_INDEX_FORMAT_H_
