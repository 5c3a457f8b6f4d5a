#include "repository/pack_list.h"

#include <algorithm>

namespace blockferry {

std::vector<uint32_t>::const_iterator PackList::LowerBound(const PackId& id) const {
  const std::vector<uint32_t>& folder = InFolder(id[0]);
  return std::lower_bound(
      folder.begin(), folder.end(), id,
      [this](uint32_t number, const PackId& other) { return packs_[number].id < other; });
}

std::optional<uint32_t> PackList::Find(const PackId& id) const {
  const auto at = LowerBound(id);
  if (at == InFolder(id[0]).end() || packs_[*at].id != id) return std::nullopt;
  return *at;
}

uint32_t PackList::Add(const PackId& id) {
  const auto at = LowerBound(id);
  std::vector<uint32_t>& folder = folders_[std::to_integer<size_t>(id[0])];
  if (at != folder.end() && packs_[*at].id == id) return *at;
  const uint32_t number = size();
  folder.insert(at, number);
  packs_.push_back({});
  packs_.back().id = id;
  return number;
}

}  // namespace blockferry
