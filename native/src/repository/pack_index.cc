#include "repository/pack_index.h"

#include <algorithm>
#include <cassert>
#include <mutex>

#include "core/endian.h"

namespace blockferry {
namespace {

// stored_size_and_flags: the size in the low 24 bits, then the type, then one flag.
constexpr uint32_t kSizeMask = 0xffffff;
constexpr unsigned kTypeShift = 24;
constexpr uint32_t kDamaged = 1u << 31;
constexpr size_t kSlotCountMin = 1024;

}  // namespace

template <typename Visit>
void PackIndex::ForEach(RecordType type, const Digest& name, Visit visit) const {
  if (places_.empty()) return;
  uint64_t low = LoadLe<uint64_t>(name.data());
  uint64_t high = LoadLe<uint64_t>(name.data() + 8);
  size_t mask = places_.size() - 1;
  for (size_t slot = low & mask; places_[slot].pack_plus_one != 0; slot = (slot + 1) & mask) {
    const Place& place = places_[slot];
    if (slots_[slot].name_low != low || slots_[slot].name_high != high) continue;
    if (((place.stored_size_and_flags >> kTypeShift) & 0x7f) != static_cast<uint32_t>(type)) {
      continue;
    }
    if (!packs_[place.pack_plus_one - 1].usable) continue;
    if (!visit(slot)) return;
  }
}

void PackIndex::Insert(const Slot& name, const Place& place) {
  size_t mask = places_.size() - 1;
  size_t slot = name.name_low & mask;
  while (places_[slot].pack_plus_one != 0) slot = (slot + 1) & mask;
  slots_[slot] = name;
  places_[slot] = place;
  ++used_;
}

// Entries of packs that are gone are left behind here.
void PackIndex::Grow() {
  std::vector<Slot> slots(std::max(kSlotCountMin, slots_.size() * 2));
  std::vector<Place> places(slots.size());
  slots_.swap(slots);
  places_.swap(places);
  used_ = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i].pack_plus_one != 0 && packs_[places[i].pack_plus_one - 1].usable) {
      Insert(slots[i], places[i]);
    }
  }
}

uint32_t PackIndex::AddPack(const PackId& id, uint64_t size, std::span<const PackEntry> entries) {
  std::unique_lock lock(mutex_);
  uint32_t number = static_cast<uint32_t>(packs_.size());
  Pack pack{id, size, 0, true};
  for (const PackEntry& entry : entries) {
    if (entry.type == RecordType::kChunk) ++pack.chunk_count;
  }
  packs_.push_back(pack);
  ++pack_count_;
  stored_ += pack.size;
  chunk_count_ += pack.chunk_count;
  by_id_.emplace(HexOf(id), number);
  for (const PackEntry& entry : entries) {
    // At most three quarters full, so that a miss stays short.
    if (places_.empty() || (used_ + 1) * 4 > places_.size() * 3) Grow();
    Slot name{LoadLe<uint64_t>(entry.name.data()), LoadLe<uint64_t>(entry.name.data() + 8)};
    assert(entry.stored_size <= kSizeMask);
    Insert(name, {number + 1, entry.offset,
                  entry.stored_size | (static_cast<uint32_t>(entry.type) << kTypeShift)});
  }
  return number;
}

void PackIndex::RemovePack(uint32_t pack) {
  std::unique_lock lock(mutex_);
  Pack& gone = packs_[pack];
  gone.usable = false;
  by_id_.erase(HexOf(gone.id));
  --pack_count_;
  stored_ -= gone.size;
  chunk_count_ -= gone.chunk_count;
}

void PackIndex::MarkDamaged(RecordType type, const Digest& name, const RecordPlace& place) {
  std::unique_lock lock(mutex_);
  ForEach(type, name, [&](size_t slot) {
    Place& at = places_[slot];
    if (at.pack_plus_one == place.pack + 1 && at.offset == place.offset) {
      at.stored_size_and_flags |= kDamaged;
    }
    return true;
  });
}

std::optional<RecordPlace> PackIndex::Find(RecordType type, const Digest& name) const {
  std::shared_lock lock(mutex_);
  std::optional<RecordPlace> found;
  ForEach(type, name, [&](size_t slot) {
    const Place& at = places_[slot];
    if (at.stored_size_and_flags & kDamaged) return true;
    found = {at.pack_plus_one - 1, at.offset, at.stored_size_and_flags & kSizeMask};
    return false;
  });
  return found;
}

std::vector<RecordPlace> PackIndex::FindAll(RecordType type, const Digest& name) const {
  std::shared_lock lock(mutex_);
  std::vector<RecordPlace> found;
  ForEach(type, name, [&](size_t slot) {
    const Place& at = places_[slot];
    found.push_back({at.pack_plus_one - 1, at.offset, at.stored_size_and_flags & kSizeMask});
    return true;
  });
  return found;
}

std::optional<uint32_t> PackIndex::PackNumber(const PackId& id) const {
  std::shared_lock lock(mutex_);
  auto found = by_id_.find(HexOf(id));
  return found == by_id_.end() ? std::nullopt : std::optional<uint32_t>(found->second);
}

PackId PackIndex::IdOf(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].id;
}

bool PackIndex::IsUsable(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].usable;
}

std::vector<PackId> PackIndex::UsablePacks() const {
  std::shared_lock lock(mutex_);
  std::vector<PackId> ids;
  for (const Pack& pack : packs_) {
    if (pack.usable) ids.push_back(pack.id);
  }
  return ids;
}

}  // namespace blockferry
