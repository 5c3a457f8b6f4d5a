// Which pack holds a name? A table in memory, filled from the tables of all packs: a cache, the
// packs are the truth.
//
// 28 bytes for each record: the table holds the first half of each name only, and a reader compares
// the whole name with the record's own header. Names are keyed digests, so nobody can choose two
// with the same half. Thread-safe.
#ifndef BLOCKFERRY_REPOSITORY_PACK_INDEX_H_
#define BLOCKFERRY_REPOSITORY_PACK_INDEX_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "repository/pack_writer.h"

namespace blockferry {

struct RecordPlace {
  uint32_t pack = 0;  // Number of the pack in this process.
  uint32_t offset = 0;
  uint32_t stored_size = 0;
};

class PackIndex {
 public:
  // Adds a durable pack. `size` is the file's.
  uint32_t AddPack(const PackId& id, uint64_t size, std::span<const PackEntry> entries);
  // Its records are lacking from now on.
  void RemovePack(uint32_t pack);
  // The record there is known to be damaged: Find passes it over, FindAll does not.
  void MarkDamaged(RecordType type, const Digest& name, const RecordPlace& place);

  std::optional<RecordPlace> Find(RecordType type, const Digest& name) const;
  // Every place of the name; several when two sessions stored it at the same time.
  std::vector<RecordPlace> FindAll(RecordType type, const Digest& name) const;

  std::optional<uint32_t> PackNumber(const PackId& id) const;
  PackId IdOf(uint32_t pack) const;
  bool IsUsable(uint32_t pack) const;
  std::vector<PackId> UsablePacks() const;

  // Without the lock: the thread that asks must not wait for a table that grows.
  uint64_t pack_count() const { return pack_count_; }
  uint64_t stored() const { return stored_; }
  uint64_t chunk_count() const { return chunk_count_; }

 private:
  struct Pack {
    PackId id{};
    uint64_t size = 0;
    uint64_t chunk_count = 0;
    bool usable = false;
  };
  // A record's place packed; pack_plus_one is 0 in a free slot.
  struct Slot {
    uint64_t name_low = 0;
    uint64_t name_high = 0;
  };
  struct Place {
    uint32_t pack_plus_one = 0;
    uint32_t offset = 0;
    uint32_t stored_size_and_flags = 0;
  };
  template <typename Visit>
  void ForEach(RecordType type, const Digest& name, Visit visit) const;
  void Insert(const Slot& slot, const Place& place);
  void Grow();

  mutable std::shared_mutex mutex_;
  std::vector<Pack> packs_;
  std::unordered_map<std::string, uint32_t> by_id_;  // Usable packs by their id in hex.
  std::vector<Slot> slots_;
  std::vector<Place> places_;
  uint64_t used_ = 0;
  // Of the usable packs.
  std::atomic<uint64_t> pack_count_ = 0;
  std::atomic<uint64_t> stored_ = 0;
  std::atomic<uint64_t> chunk_count_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_INDEX_H_
