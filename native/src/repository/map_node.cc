#include "repository/map_node.h"

#include <bit>
#include <cassert>

#include "core/endian.h"

namespace blockferry {

unsigned MapLevelCount(uint64_t block_count) {
  unsigned levels = 1;
  while (levels < kMapLevelsMax && MapNodeSpan(levels - 1) < block_count) ++levels;
  assert(block_count <= MapNodeSpan(levels - 1));
  return levels;
}

Bytes EncodeMapNode(const MapNode& node, std::array<std::byte, kMapNodeSizeMax>* buffer) {
  std::byte* to = buffer->data();
  StoreLe(to, node.present);
  to += kMapBitmapSize;
  for (unsigned child = 0; child < kMapFanOut; ++child) {
    if (!node.Has(child)) continue;
    std::memcpy(to, node.names[child].data(), kMapNameSize);
    to += kMapNameSize;
  }
  return Bytes(buffer->data(), to);
}

bool DecodeMapNode(Bytes bytes, unsigned child_count, MapNode* node) {
  assert(child_count >= 1 && child_count <= kMapFanOut);
  if (bytes.size() < kMapBitmapSize) return false;
  uint64_t present = LoadLe<uint64_t>(bytes.data());
  // A node without children would be a second way to write a hole.
  if (present == 0 || (child_count < kMapFanOut && present >> child_count != 0)) return false;
  size_t count = static_cast<size_t>(std::popcount(present));
  if (bytes.size() != kMapBitmapSize + count * kMapNameSize) return false;
  node->present = present;
  const std::byte* from = bytes.data() + kMapBitmapSize;
  for (unsigned child = 0; child < kMapFanOut; ++child) {
    if (!node->Has(child)) continue;
    std::memcpy(node->names[child].data(), from, kMapNameSize);
    from += kMapNameSize;
  }
  return true;
}

}  // namespace blockferry
