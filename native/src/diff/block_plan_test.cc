#include "diff/block_plan.h"

#include <gtest/gtest.h>

#include <random>

#include "repository/block_geometry.h"
#include "source/fake_source.h"

namespace blockferry {
namespace {

using Kind = BlockRun::Kind;

std::vector<Kind> KindsOf(BlockPlan* plan, uint64_t first_block) {
  std::vector<Kind> kinds;
  plan->StartAt(first_block);
  uint64_t next = first_block;
  while (true) {
    const Result<std::optional<BlockRun>> run = plan->Next();
    EXPECT_TRUE(run.ok());
    if (!run->has_value()) return kinds;
    EXPECT_EQ((*run)->first_block, next);
    EXPECT_GT((*run)->end_block, next);
    next = (*run)->end_block;
    kinds.resize(next - first_block, (*run)->kind);
  }
}

// What a plan has to say, byte by byte.
std::vector<Kind> ExpectedKinds(const std::vector<Extent>& extents, uint64_t size_bytes) {
  std::vector<Kind> kinds;
  for (uint64_t block = 0; block < BlockCountOf(size_bytes); ++block) {
    const uint64_t begin = block * kBlockSize;
    const uint64_t end = begin + BlockSizeAt(size_bytes, block);
    bool data = false, changed = false;
    for (const Extent& extent : extents) {
      if (extent.end_bytes() <= begin || extent.offset_bytes >= end) continue;
      data = data || extent.allocated;
      changed = changed || extent.changed;
    }
    kinds.push_back(!changed ? Kind::kKept : data ? Kind::kData : Kind::kHole);
  }
  return kinds;
}

TEST(BlockPlan, AgreesWithAByteWiseLookAtRandomExtents) {
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<Extent> extents;
    uint64_t offset = 0;
    const int count = static_cast<int>(random() % 30) + 1;
    for (int i = 0; i < count; ++i) {
      const uint64_t scale = random() % 3 == 0 ? 512 : kBlockSize;
      const uint64_t size = (random() % 5 + 1) * scale + (random() % 4 == 0 ? random() % 700 : 0);
      extents.push_back({offset, size, random() % 2 == 0, random() % 2 == 0});
      offset += size;
    }
    FakeSource source(extents, {});
    const ChangedBlockMap changed = ChangedBlockMap::FromSource();
    BlockPlan plan(&source, &changed);
    const std::vector<Kind> expected = ExpectedKinds(extents, offset);
    ASSERT_EQ(KindsOf(&plan, 0), expected) << "SEED=" << seed << " round " << round;
    const uint64_t middle = expected.size() / 2;
    const std::vector<Kind> rest(expected.begin() + static_cast<ptrdiff_t>(middle), expected.end());
    ASSERT_EQ(KindsOf(&plan, middle), rest) << "SEED=" << seed << " round " << round;
  }
}

TEST(BlockPlan, KeepsNothingWhenNothingIsKnown) {
  FakeSource source({{0, kBlockSize, true, false}, {kBlockSize, 10, false, false}}, {});
  const ChangedBlockMap changed = ChangedBlockMap::All();
  BlockPlan plan(&source, &changed);
  EXPECT_EQ(KindsOf(&plan, 0), (std::vector<Kind>{Kind::kData, Kind::kHole}));
}

TEST(BlockPlan, MakesAHoleOfAMarkedBlockThatIsOneNow) {
  FakeSource source({{0, kBlockSize, false, true}, {kBlockSize, 10, true, false}}, {});
  const ChangedBlockMap changed = ChangedBlockMap::FromSource();
  BlockPlan plan(&source, &changed);
  EXPECT_EQ(KindsOf(&plan, 0), (std::vector<Kind>{Kind::kHole, Kind::kKept}));
}

TEST(BlockPlan, IsDoneAtOnceWithADiskOfNoBytes) {
  FakeSource source({}, {});
  const ChangedBlockMap changed = ChangedBlockMap::All();
  BlockPlan plan(&source, &changed);
  EXPECT_TRUE(KindsOf(&plan, 0).empty());
}

TEST(BlockPlan, CountsBytesNotBlocks) {
  FakeSource source({{0, 1000, true, false}, {1000, 500, true, true}, {1500, 250, false, true}},
                    {});
  const ChangedBlockMap marks = ChangedBlockMap::FromSource();
  const Result<DiskTotals> totals = BlockPlan(&source, &marks).Count();
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->allocated_bytes, 1500u);
  EXPECT_EQ(totals->changed_bytes, 750u);
  const ChangedBlockMap all = ChangedBlockMap::All();
  const Result<DiskTotals> unknown = BlockPlan(&source, &all).Count();
  ASSERT_TRUE(unknown.ok());
  EXPECT_EQ(unknown->changed_bytes, 1500u);
}

}  // namespace
}  // namespace blockferry
