#include "repository/index_table.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "repository/index_format.h"

namespace blockferry {
namespace {

using namespace index_format;

constexpr size_t kSlotSize = sizeof(IndexKey) + 12;
constexpr size_t kFirstSlotCount = 1024;
constexpr size_t kSlotCountMin = 4;

// At most three quarters full, so that a miss stays short.
constexpr size_t EntryCountMax(size_t slot_count) { return slot_count / 4 * 3; }

}  // namespace

IndexTable::IndexTable(size_t size_max)
    : entry_count_max_(
          EntryCountMax(std::max(kSlotCountMin, std::bit_floor(size_max / kSlotSize)))) {}

bool IndexTable::Fits(size_t entry_count) const {
  return packs_.empty() || entry_count_ + entry_count <= entry_count_max_;
}

void IndexTable::AddPack(uint32_t pack, std::span<const PackEntry> entries) {
  assert(Fits(entries.size()));
  packs_.push_back(pack);
  for (const PackEntry& entry : entries) {
    if (entry_count_ + 1 > EntryCountMax(places_.size())) Grow();
    assert(entry.stored_size <= kStoredSizeMask);
    Insert(IndexKey::Of(entry.name),
           {pack + 1, entry.offset,
            entry.stored_size | static_cast<uint32_t>(entry.type) << kTypeShift});
  }
}

void IndexTable::Insert(const IndexKey& key, const Place& place) {
  const size_t mask = places_.size() - 1;
  size_t slot = key.low & mask;
  while (places_[slot].pack_plus_one != 0) slot = (slot + 1) & mask;
  keys_[slot] = key;
  places_[slot] = place;
  ++entry_count_;
}

void IndexTable::Grow() {
  const size_t slot_count = places_.empty()
                                ? std::min(kFirstSlotCount, std::bit_ceil(entry_count_max_))
                                : 2 * places_.size();
  std::vector<IndexKey> keys(slot_count);
  std::vector<Place> places(slot_count);
  keys_.swap(keys);
  places_.swap(places);
  entry_count_ = 0;
  for (size_t slot = 0; slot < places.size(); ++slot) {
    if (places[slot].pack_plus_one != 0) Insert(keys[slot], places[slot]);
  }
}

IndexEntry IndexTable::EntryAt(size_t slot) const {
  const Place& place = places_[slot];
  return {keys_[slot], place.pack_plus_one - 1, place.offset,
          place.stored_size_and_type & kStoredSizeMask,
          static_cast<RecordType>(place.stored_size_and_type >> kTypeShift)};
}

std::vector<uint32_t> IndexTable::SortedSlots() const {
  std::vector<uint32_t> slots;
  slots.reserve(entry_count_);
  for (uint32_t slot = 0; slot < places_.size(); ++slot) {
    if (places_[slot].pack_plus_one != 0) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(),
            [this](uint32_t a, uint32_t b) { return EntryAt(a) < EntryAt(b); });
  return slots;
}

}  // namespace blockferry
