#include <cassert>

#include "fuzz_target.h"
#include "repository/map_node.h"

namespace blockferry::fuzz {
namespace {

// The first byte says how many children the node may have.
void Run(Bytes input) {
  if (input.empty()) return;
  const unsigned child_count = std::to_integer<unsigned>(input[0]) % kMapFanOut + 1;
  const Bytes bytes = input.subspan(1);
  MapNode node;
  if (!DecodeMapNode(bytes, child_count, &node)) return;
  for (unsigned child = child_count; child < kMapFanOut; ++child) assert(!node.Has(child));
  // There is one way to write a node: what was accepted is what would be written.
  std::array<std::byte, kMapNodeSizeMax> again;
  assert(Equal(EncodeMapNode(node, &again), bytes));
}

std::vector<ByteVector> Seeds() {
  std::vector<ByteVector> seeds;
  for (const unsigned step : {1u, 7u, 63u}) {
    MapNode node;
    for (unsigned child = 0; child < kMapFanOut; child += step) {
      node.Set(child, Digest{static_cast<std::byte>(child)});
    }
    std::array<std::byte, kMapNodeSizeMax> buffer;
    const Bytes bytes = EncodeMapNode(node, &buffer);
    seeds.push_back(InputOf(kMapFanOut - 1, bytes));
  }
  return seeds;
}

}  // namespace

const Target kMapNode{"map_node", Run, Seeds};

}  // namespace blockferry::fuzz
