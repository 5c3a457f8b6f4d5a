// The packs of a repository by number and by id: 28 bytes for each and 4 to find it. Numbers are of
// this process and stay; a pack that vanished keeps its own. Not thread-safe.
#ifndef BLOCKFERRY_REPOSITORY_PACK_LIST_H_
#define BLOCKFERRY_REPOSITORY_PACK_LIST_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "repository/pack_writer.h"

namespace blockferry {

struct Pack {
  PackId id{};
  uint32_t size = 0;  // Of the file.
  uint32_t chunk_count = 0;
  // Index files that cover it: those in the repository, and those that go with this process.
  uint16_t file_count = 0;
  uint16_t scratch_file_count = 0;
  bool is_in_table = false;
  bool is_usable = false;      // It was there when its folder was last listed.
  bool is_tombstoned = false;  // It was about to go then: it can be read, not referred to.
  bool is_damaged = false;     // Too many of its records are.

  bool is_indexed() const { return is_in_table || file_count > 0 || scratch_file_count > 0; }
};

class PackList {
 public:
  // The number of the pack with that id, a new one if need be.
  uint32_t Add(const PackId& id);
  std::optional<uint32_t> Find(const PackId& id) const;

  Pack& operator[](uint32_t number) { return packs_[number]; }
  const Pack& operator[](uint32_t number) const { return packs_[number]; }
  uint32_t size() const { return static_cast<uint32_t>(packs_.size()); }

  // The packs whose id starts with that byte, which lie in one folder, ascending by id.
  const std::vector<uint32_t>& InFolder(std::byte folder) const {
    return folders_[std::to_integer<size_t>(folder)];
  }

 private:
  std::vector<uint32_t>::const_iterator LowerBound(const PackId& id) const;

  std::vector<Pack> packs_;
  std::array<std::vector<uint32_t>, 256> folders_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_LIST_H_
