#include "repository/patch.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace blockferry {
namespace {

// Calls `visit` with the offset in the block, the offset among the gathered pages, and the size.
template <typename Visit>
void ForEachPage(const PageSet& pages, size_t block_size, Visit visit) {
  size_t gathered = 0;
  for (size_t page = 0; page < kPageCountMax; ++page) {
    const size_t offset = page * kPageSize;
    if (!pages[page] || offset >= block_size) continue;
    const size_t size = std::min(kPageSize, block_size - offset);
    visit(offset, gathered, size);
    gathered += size;
  }
}

}  // namespace

size_t SizeOfPages(const PageSet& pages, size_t block_size) {
  size_t sum = 0;
  ForEachPage(pages, block_size, [&](size_t, size_t, size_t size) { sum += size; });
  return sum;
}

void EncodePatchHead(const PatchHead& head, MutableBytes out) {
  assert(out.size() == kPatchHeadSize);
  std::memcpy(out.data(), head.base.data(), sizeof(Digest));
  std::fill(out.begin() + sizeof(Digest), out.end(), std::byte{0});
  for (size_t page = 0; page < kPageCountMax; ++page) {
    if (head.pages[page]) out[sizeof(Digest) + page / 8] |= std::byte{1} << (page % 8);
  }
}

bool DecodePatchHead(Bytes stored, size_t block_size, PatchHead* head) {
  if (stored.size() < kPatchHeadSize) return false;
  std::memcpy(head->base.data(), stored.data(), sizeof(Digest));
  head->pages.reset();
  for (size_t bit = 0; bit < 8 * (kPatchHeadSize - sizeof(Digest)); ++bit) {
    const bool is_set =
        (stored[sizeof(Digest) + bit / 8] & (std::byte{1} << (bit % 8))) != std::byte{0};
    if (!is_set) continue;
    if (bit >= kPageCountMax || bit * kPageSize >= block_size) return false;
    head->pages.set(bit);
  }
  return head->pages.any();
}

void GatherPages(const PageSet& pages, Bytes block, MutableBytes out) {
  assert(out.size() == SizeOfPages(pages, block.size()));
  ForEachPage(pages, block.size(), [&](size_t offset, size_t gathered, size_t size) {
    std::memcpy(out.data() + gathered, block.data() + offset, size);
  });
}

void LayPagesOver(const PageSet& pages, Bytes gathered_pages, MutableBytes block) {
  assert(gathered_pages.size() == SizeOfPages(pages, block.size()));
  ForEachPage(pages, block.size(), [&](size_t offset, size_t gathered, size_t size) {
    std::memcpy(block.data() + offset, gathered_pages.data() + gathered, size);
  });
}

}  // namespace blockferry
