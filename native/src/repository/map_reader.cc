#include "repository/map_reader.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace blockferry {
namespace {

// Which child of its node of `level` leads to the block.
unsigned ChildOf(unsigned level, uint64_t index) {
  return static_cast<unsigned>(index >> (6 * level)) % kMapFanOut;
}

}  // namespace

MapReader::MapReader(MapNodeSource* source, const std::optional<Digest>& root, uint64_t block_count)
    : source_(source),
      root_(root),
      block_count_(block_count),
      level_count_(MapLevelCount(block_count)),
      levels_(std::make_unique<std::array<Level, kMapLevelsMax>>()) {}

unsigned MapReader::ChildCount(unsigned level, uint64_t index) const {
  uint64_t child_span = MapNodeSpan(level) / kMapFanOut;
  uint64_t start = index - index % MapNodeSpan(level);
  uint64_t count = (block_count_ - start + child_span - 1) / child_span;
  return static_cast<unsigned>(std::min<uint64_t>(count, kMapFanOut));
}

Status MapReader::Load(unsigned level, uint64_t index, const Digest& name) {
  Level& at = (*levels_)[level];
  // The same node may stand at several places; at the ragged end of the disk its children are
  // checked again.
  unsigned child_count = ChildCount(level, index);
  if (at.loaded && at.name == name &&
      (child_count == kMapFanOut || at.node.present >> child_count == 0)) {
    return {};
  }
  at.loaded = false;
  std::array<std::byte, kMapNodeSizeMax> buffer;
  ASSIGN_OR_RETURN(size_t size, source_->ReadNode(name, buffer));
  if (!DecodeMapNode(Bytes(buffer).first(size), child_count, &at.node)) {
    return Status(reason::kBlockCorrupt,
                  "read the disk map: node " + HexOf(name) + " of level " + std::to_string(level) +
                      " does not fit a disk of " + std::to_string(block_count_) +
                      " blocks; restore another backup",
                  {{"name", HexOf(name)}, {"level", std::to_string(level)}});
  }
  at.name = name;
  at.loaded = true;
  return {};
}

Result<std::optional<Digest>> MapReader::NodeAt(unsigned level, uint64_t index) {
  assert(level < level_count_ && index < block_count_);
  if (!root_) return std::optional<Digest>();
  Digest name = *root_;
  for (unsigned above = level_count_ - 1; above > level; --above) {
    RETURN_IF_ERROR(Load(above, index, name));
    const MapNode& node = (*levels_)[above].node;
    unsigned child = ChildOf(above, index);
    if (!node.Has(child)) return std::optional<Digest>();
    name = node.names[child];
  }
  return std::optional<Digest>(name);
}

Result<std::optional<Digest>> MapReader::Find(uint64_t index) {
  ASSIGN_OR_RETURN(std::optional<Digest> leaf, NodeAt(0, index));
  if (!leaf) return leaf;
  RETURN_IF_ERROR(Load(0, index, *leaf));
  const MapNode& node = (*levels_)[0].node;
  unsigned child = ChildOf(0, index);
  return node.Has(child) ? std::optional<Digest>(node.names[child]) : std::nullopt;
}

Result<std::optional<MapEntry>> MapReader::Next(uint64_t index) {
  if (!root_) return std::optional<MapEntry>();
  uint64_t at = index;
  while (at < block_count_) {
    Digest name = *root_;
    for (unsigned level = level_count_ - 1;; --level) {
      RETURN_IF_ERROR(Load(level, at, name));
      const MapNode& node = (*levels_)[level].node;
      uint64_t start = at - at % MapNodeSpan(level);
      uint64_t rest = node.present >> ChildOf(level, at);
      if (rest == 0) {
        at = start + MapNodeSpan(level);
        break;
      }
      unsigned child = ChildOf(level, at) + static_cast<unsigned>(std::countr_zero(rest));
      if (child != ChildOf(level, at)) at = start + (uint64_t{child} << (6 * level));
      name = node.names[child];
      if (level == 0) return std::optional<MapEntry>(MapEntry{at, name});
    }
  }
  return std::optional<MapEntry>();
}

}  // namespace blockferry
