#include "repository/map_writer.h"

#include <cassert>

namespace blockferry {
namespace {

// The number of the node of `level` that covers the block.
uint64_t NodeNumber(unsigned level, uint64_t index) { return index >> (6 * (level + 1)); }

}  // namespace

MapWriter::MapWriter(MapNodeSink* sink, uint64_t block_count)
    : sink_(sink),
      block_count_(block_count),
      level_count_(MapLevelCount(block_count)),
      nodes_(std::make_unique<std::array<MapNode, kMapLevelsMax>>()) {}

// The partial node of `level` is complete: it becomes a child of the one above.
Status MapWriter::Flush(unsigned level) {
  MapNode& node = (*nodes_)[level];
  if (node.present == 0) return {};
  std::array<std::byte, kMapNodeSizeMax> buffer;
  ASSIGN_OR_RETURN(Digest name, sink_->PutNode(EncodeMapNode(node, &buffer)));
  unsigned child = static_cast<unsigned>(NodeNumber(level, path_index_) % kMapFanOut);
  (*nodes_)[level + 1].Set(child, name);
  node.present = 0;
  return {};
}

// Moves the path to `index`; nodes that it leaves are complete.
Status MapWriter::Advance(uint64_t index) {
  for (unsigned level = 0; level + 1 < level_count_; ++level) {
    if (NodeNumber(level, index) == NodeNumber(level, path_index_)) break;
    RETURN_IF_ERROR(Flush(level));
  }
  path_index_ = index;
  return {};
}

Status MapWriter::Put(uint64_t index, const Digest& name) {
  assert(index >= next_index_ && index < block_count_);
  RETURN_IF_ERROR(Advance(index));
  (*nodes_)[0].Set(static_cast<unsigned>(index % kMapFanOut), name);
  next_index_ = index + 1;
  return {};
}

Status MapWriter::Keep(MapReader& base, uint64_t first, uint64_t end) {
  assert(first >= next_index_ && first <= end && end <= block_count_);
  assert(base.block_count() == block_count_);
  uint64_t at = first;
  while (at < end) {
    // The largest subtree below the root that starts here and holds nothing beyond `end`.
    unsigned levels = 0;
    while (levels + 1 < level_count_ && at % MapNodeSpan(levels) == 0 &&
           (end == block_count_ || at + MapNodeSpan(levels) <= end)) {
      ++levels;
      // Taking the ragged last subtree at a level where it would also hold earlier blocks is
      // excluded by the alignment; a smaller span that already reaches the end is enough.
      if (at + MapNodeSpan(levels - 1) >= end) break;
    }
    uint64_t span = levels == 0 ? 1 : MapNodeSpan(levels - 1);
    std::optional<Digest> name;
    if (levels == 0) {
      ASSIGN_OR_RETURN(name, base.Find(at));
    } else {
      ASSIGN_OR_RETURN(name, base.NodeAt(levels - 1, at));
    }
    if (name) {
      RETURN_IF_ERROR(Advance(at));
      (*nodes_)[levels].Set(static_cast<unsigned>((at >> (6 * levels)) % kMapFanOut), *name);
    }
    at += span;
  }
  next_index_ = end;
  return {};
}

Result<std::optional<Digest>> MapWriter::Finish() {
  for (unsigned level = 0; level + 1 < level_count_; ++level) RETURN_IF_ERROR(Flush(level));
  next_index_ = block_count_;
  const MapNode& root = (*nodes_)[level_count_ - 1];
  if (root.present == 0) return std::optional<Digest>();
  std::array<std::byte, kMapNodeSizeMax> buffer;
  ASSIGN_OR_RETURN(Digest name, sink_->PutNode(EncodeMapNode(root, &buffer)));
  return std::optional<Digest>(name);
}

void MapWriter::Save(ByteWriter* out) const {
  out->Put(next_index_);
  out->Put(path_index_);
  out->Put(static_cast<uint8_t>(level_count_));
  for (unsigned level = 0; level < level_count_; ++level) {
    std::array<std::byte, kMapNodeSizeMax> buffer;
    Bytes node = (*nodes_)[level].present == 0 ? Bytes() : EncodeMapNode((*nodes_)[level], &buffer);
    out->Put(static_cast<uint16_t>(node.size()));
    out->PutBytes(node);
  }
}

bool MapWriter::Restore(ByteReader* in) {
  assert(next_index_ == 0);
  uint64_t next_index = in->Take<uint64_t>();
  uint64_t path_index = in->Take<uint64_t>();
  bool fits =
      in->Take<uint8_t>() == level_count_ && next_index <= block_count_ && path_index <= next_index;
  for (unsigned level = 0; fits && level < level_count_; ++level) {
    uint16_t size = in->Take<uint16_t>();
    if (size != 0) fits = DecodeMapNode(in->TakeBytes(size), kMapFanOut, &(*nodes_)[level]);
  }
  if (!fits || !in->ok()) {
    for (MapNode& node : *nodes_) node.present = 0;
    return false;
  }
  next_index_ = next_index;
  path_index_ = path_index;
  return true;
}

}  // namespace blockferry
