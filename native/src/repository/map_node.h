// A node of a disk map, and where nodes come from and go to.
//
// A disk map is a tree over block indexes with 64 children at every node. A leaf names chunks, an
// inner node names nodes; an absent child is a hole. Depth 0 is the leaf level.
#ifndef BLOCKFERRY_REPOSITORY_MAP_NODE_H_
#define BLOCKFERRY_REPOSITORY_MAP_NODE_H_

#include <array>
#include <cstdint>
#include <optional>

#include "core/blake3.h"
#include "core/status.h"
#include "repository/map_format.h"

namespace blockferry {

struct MapNode {
  uint64_t present = 0;                  // Bit i: child i exists.
  std::array<Digest, kMapFanOut> names;  // Names of absent children are undefined.

  bool Has(unsigned child) const { return (present >> child) & 1; }
  void Set(unsigned child, const Digest& name) {
    present |= uint64_t{1} << child;
    names[child] = name;
  }
};

// Levels of the map of a disk of that many blocks: the least with 64^levels >= block_count, at
// least one.
unsigned MapLevelCount(uint64_t block_count);

// Blocks below one node of that level: 64^(level + 1).
constexpr uint64_t MapNodeSpan(unsigned level) { return uint64_t{1} << (6 * (level + 1)); }

// The node's bytes in a buffer of the caller.
Bytes EncodeMapNode(const MapNode& node, std::array<std::byte, kMapNodeSizeMax>* buffer);

// False when the bytes are no node, or it has a child at or beyond `child_count`.
bool DecodeMapNode(Bytes bytes, unsigned child_count, MapNode* node);

// Gives nodes whose bytes have been compared with their name.
class MapNodeSource {
 public:
  virtual ~MapNodeSource() = default;
  // Fills `buffer` and returns the node's size.
  virtual Result<size_t> ReadNode(const Digest& name, MutableBytes buffer) = 0;
};

// Stores nodes and names them.
class MapNodeSink {
 public:
  virtual ~MapNodeSink() = default;
  virtual Result<Digest> PutNode(Bytes node) = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_MAP_NODE_H_
