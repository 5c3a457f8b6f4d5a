// The part of the index that lies in memory: what the youngest packs hold, until a file takes it
// over. Open addressing, 28 bytes for each slot. Not thread-safe.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_TABLE_H_
#define BLOCKFERRY_REPOSITORY_INDEX_TABLE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "repository/index_entry.h"
#include "repository/pack_writer.h"

namespace blockferry {

class IndexTable {
 public:
  // Takes at most `size_max` bytes, unless a single pack has more entries than fit into these.
  explicit IndexTable(size_t size_max);

  // The numbers of its packs, in the order in which they came.
  const std::vector<uint32_t>& packs() const { return packs_; }

  // An empty table takes every pack.
  bool Fits(size_t entry_count) const;
  size_t entry_count() const { return entry_count_; }
  // REQUIRES: Fits(entries.size()).
  void AddPack(uint32_t pack, std::span<const PackEntry> entries);

  // Calls `visit` with every entry of the key until it returns false.
  template <typename Visit>
  void ForEach(const IndexKey& key, Visit visit) const {
    if (places_.empty()) return;
    const size_t mask = places_.size() - 1;
    for (size_t slot = key.low & mask; places_[slot].pack_plus_one != 0; slot = (slot + 1) & mask) {
      if (keys_[slot] == key && !visit(EntryAt(slot))) return;
    }
  }

  // The positions of all entries, sorted by what is there.
  std::vector<uint32_t> SortedSlots() const;
  IndexEntry EntryAt(size_t slot) const;

 private:
  // pack_plus_one is 0 in a free slot.
  struct Place {
    uint32_t pack_plus_one = 0;
    uint32_t offset = 0;
    uint32_t stored_size_and_type = 0;
  };
  void Insert(const IndexKey& key, const Place& place);
  void Grow();

  size_t entry_count_max_;
  size_t entry_count_ = 0;
  std::vector<IndexKey> keys_;
  std::vector<Place> places_;
  std::vector<uint32_t> packs_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_TABLE_H_
