#include <gtest/gtest.h>

#include <map>
#include <random>

#include "repository/map_reader.h"
#include "repository/map_writer.h"

namespace blockferry {
namespace {

// Nodes in memory, named by their hash.
class NodeStore : public MapNodeSource, public MapNodeSink {
 public:
  Result<size_t> ReadNode(const Digest& name, MutableBytes buffer) override {
    ++read_count;
    auto found = nodes.find(name);
    if (found == nodes.end()) return Status(reason::kChunkMissing, "read a node: it is missing");
    std::copy(found->second.begin(), found->second.end(), buffer.begin());
    return found->second.size();
  }
  Result<Digest> PutNode(Bytes node) override {
    Digest name = Blake3Hash(node);
    nodes[name] = ByteVector(node.begin(), node.end());
    return name;
  }
  std::map<Digest, ByteVector> nodes;
  int read_count = 0;
};

Digest NameOf(uint64_t number) {
  Digest name{};
  StoreLe(name.data(), number);
  return name;
}

using Blocks = std::map<uint64_t, uint64_t>;  // Index → number of its name.

std::optional<Digest> Write(NodeStore* store, const Blocks& blocks, uint64_t block_count) {
  MapWriter writer(store, block_count);
  for (const auto& [index, number] : blocks) {
    EXPECT_TRUE(writer.Put(index, NameOf(number)).ok());
  }
  return *writer.Finish();
}

Blocks ReadAll(NodeStore* store, const std::optional<Digest>& root, uint64_t block_count) {
  MapReader reader(store, root, block_count);
  Blocks blocks;
  for (uint64_t at = 0;;) {
    Result<std::optional<MapEntry>> entry = reader.Next(at);
    EXPECT_TRUE(entry.ok());
    if (!entry.ok() || !*entry) return blocks;
    blocks[(*entry)->index] = LoadLe<uint64_t>((*entry)->name.data());
    at = (*entry)->index + 1;
  }
}

Blocks RandomBlocks(std::mt19937_64& random, uint64_t block_count) {
  Blocks blocks;
  int runs = static_cast<int>(random() % 12);
  for (int i = 0; i < runs; ++i) {
    uint64_t first = random() % block_count;
    uint64_t end = std::min<uint64_t>(block_count, first + 1 + random() % 300);
    for (uint64_t index = first; index < end; ++index) blocks[index] = random();
  }
  return blocks;
}

constexpr uint64_t kBlockCounts[] = {1,    2,    63,   64,     65,     4095,   4096,
                                     4097, 5000, 9000, 262144, 262145, 300000, 20000000};

TEST(DiskMap, GivesBackWhatWasPut) {
  uint64_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (uint64_t block_count : kBlockCounts) {
    for (int round = 0; round < 8; ++round) {
      NodeStore store;
      Blocks blocks = RandomBlocks(random, block_count);
      std::optional<Digest> root = Write(&store, blocks, block_count);
      ASSERT_EQ(root.has_value(), !blocks.empty());
      ASSERT_EQ(ReadAll(&store, root, block_count), blocks) << block_count;
      MapReader reader(&store, root, block_count);
      for (int i = 0; i < 50; ++i) {
        uint64_t index = random() % block_count;
        Result<std::optional<Digest>> name = reader.Find(index);
        ASSERT_TRUE(name.ok());
        ASSERT_EQ(name->has_value(), blocks.contains(index));
        if (name->has_value()) {
          ASSERT_EQ(**name, NameOf(blocks[index]));
        }
      }
    }
  }
}

TEST(DiskMap, IsTheSameTreeHoweverItWasMade) {
  uint64_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (uint64_t block_count : kBlockCounts) {
    for (int round = 0; round < 8; ++round) {
      NodeStore store;
      Blocks base = RandomBlocks(random, block_count);
      Blocks changes = RandomBlocks(random, block_count);
      std::optional<Digest> base_root = Write(&store, base, block_count);
      MapReader reader(&store, base_root, block_count);
      auto writer = std::make_unique<MapWriter>(&store, block_count);
      Blocks expected = base;
      uint64_t kept_to = 0;
      for (const auto& [index, number] : changes) {
        ASSERT_TRUE(writer->Keep(reader, kept_to, index).ok());
        // A third of the changes makes a hole.
        if (number % 3 == 0) {
          expected.erase(index);
        } else {
          ASSERT_TRUE(writer->Put(index, NameOf(number)).ok());
          expected[index] = number;
        }
        kept_to = index + 1;
        if (number % 5 == 0) {
          ByteVector saved;
          ByteWriter out(&saved);
          writer->Save(&out);
          writer = std::make_unique<MapWriter>(&store, block_count);
          ByteReader in(saved);
          ASSERT_TRUE(writer->Restore(&in));
          ASSERT_EQ(in.remaining(), 0u);
        }
      }
      ASSERT_TRUE(writer->Keep(reader, kept_to, block_count).ok());
      std::optional<Digest> root = *writer->Finish();
      ASSERT_EQ(ReadAll(&store, root, block_count), expected) << block_count;
      ASSERT_EQ(root, Write(&store, expected, block_count)) << block_count;
    }
  }
}

TEST(DiskMap, KeepsTwoTebibytesWithoutReadingThem) {
  constexpr uint64_t kBlockCount = uint64_t{1} << 25;
  NodeStore store;
  Blocks blocks;
  for (uint64_t index = 0; index < kBlockCount; index += 1000) blocks[index] = index;
  std::optional<Digest> root = Write(&store, blocks, kBlockCount);
  size_t node_count = store.nodes.size();
  store.read_count = 0;
  MapReader reader(&store, root, kBlockCount);
  MapWriter writer(&store, kBlockCount);
  ASSERT_TRUE(writer.Keep(reader, 0, 12345678).ok());
  ASSERT_TRUE(writer.Put(12345678, NameOf(1)).ok());
  ASSERT_TRUE(writer.Keep(reader, 12345679, kBlockCount).ok());
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_LE(store.read_count, 10);
  EXPECT_EQ(store.nodes.size(), node_count + 5);
}

TEST(DiskMap, RefusesNodesThatDoNotFit) {
  NodeStore store;
  constexpr uint64_t kBlockCount = 70;
  MapNode leaf;
  leaf.Set(0, NameOf(1));
  leaf.Set(6, NameOf(2));  // Block 70 when it is the second leaf: beyond the end.
  std::array<std::byte, kMapNodeSizeMax> buffer;
  Bytes bytes = EncodeMapNode(leaf, &buffer);
  for (size_t size : {size_t{0}, size_t{7}, size_t{8}, bytes.size() - 1}) {
    MapNode node;
    EXPECT_FALSE(DecodeMapNode(bytes.first(size), 64, &node)) << size;
  }
  MapNode decoded;
  EXPECT_TRUE(DecodeMapNode(bytes, 7, &decoded));
  EXPECT_FALSE(DecodeMapNode(bytes, 6, &decoded));
  ByteVector without_children(8);
  EXPECT_FALSE(DecodeMapNode(without_children, 64, &decoded));

  MapNode root;
  root.Set(0, *store.PutNode(bytes));
  root.Set(1, *store.PutNode(bytes));
  std::optional<Digest> root_name = *store.PutNode(EncodeMapNode(root, &buffer));
  MapReader reader(&store, root_name, kBlockCount);
  EXPECT_TRUE(reader.Find(6).ok());
  EXPECT_TRUE(reader.Find(64).status().Is(reason::kBlockCorrupt));
  EXPECT_TRUE(reader.Next(7).status().Is(reason::kBlockCorrupt));
}

TEST(DiskMap, OfADiskWithoutDataIsNothing) {
  NodeStore store;
  EXPECT_EQ(Write(&store, {}, 0), std::nullopt);
  EXPECT_EQ(Write(&store, {}, 100000), std::nullopt);
  EXPECT_TRUE(ReadAll(&store, std::nullopt, 100000).empty());
  EXPECT_TRUE(store.nodes.empty());
}

}  // namespace
}  // namespace blockferry
