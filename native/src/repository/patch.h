// A block stored as the pages in which it differs from a whole chunk of the same size, its base.
// A base is never a patch itself, so every block is at most two records away. Source of the layout:
// docs/repository-format.md.
#ifndef BLOCKFERRY_REPOSITORY_PATCH_H_
#define BLOCKFERRY_REPOSITORY_PATCH_H_

#include <bitset>

#include "core/blake3.h"
#include "repository/block_geometry.h"

namespace blockferry {

// Bit i: page i of the block is in the patch.
using PageSet = std::bitset<kPageCountMax>;

// The stored bytes of a patch begin with its base and its pages; the encoded pages follow.
inline constexpr size_t kPatchHeadSize = sizeof(Digest) + (kPageCountMax + 7) / 8;

struct PatchHead {
  Digest base{};
  PageSet pages;
};

// What a patch may be laid over.
struct BaseChunk {
  Digest name{};
  uint32_t stored_size = 0;  // What the whole chunk takes in its pack.
};

// The pages of a block of `block_size` bytes have so many bytes, the last one perhaps fewer.
size_t SizeOfPages(const PageSet& pages, size_t block_size);

// REQUIRES: out.size() == kPatchHeadSize.
void EncodePatchHead(const PatchHead& head, MutableBytes out);
// False unless it names a page, and none beyond the end of the block.
bool DecodePatchHead(Bytes stored, size_t block_size, PatchHead* head);

// The pages of `block`, one after the other. REQUIRES: out.size() == SizeOfPages(…).
void GatherPages(const PageSet& pages, Bytes block, MutableBytes out);
// The other way round.
void LayPagesOver(const PageSet& pages, Bytes gathered, MutableBytes block);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PATCH_H_
