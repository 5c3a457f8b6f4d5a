#include "diff/changed_block_map.h"

#include <gtest/gtest.h>

namespace blockferry {
namespace {

Extent Whole(uint64_t size_bytes, bool changed) { return {0, size_bytes, true, changed}; }

TEST(ChangedBlockMap, MarksWhatTheListNamesAndNothingElse) {
  const Result<ChangedBlockMap> map = ChangedBlockMap::FromExtents({10, 5, 15, 5, 90, 10}, 100);
  ASSERT_TRUE(map.ok());
  std::vector<bool> marks;
  for (uint64_t at = 0; at < 100;) {
    Extent extent{at, 100 - at, true, false};
    map->Mark(&extent);
    ASSERT_GT(extent.size_bytes, 0u);
    for (; at < extent.end_bytes(); ++at) marks.push_back(extent.changed);
  }
  for (uint64_t at = 0; at < 100; ++at) {
    EXPECT_EQ(marks[at], (at >= 10 && at < 20) || at >= 90) << at;
  }
}

TEST(ChangedBlockMap, MarksEverythingWhenNothingIsKnown) {
  Extent extent = Whole(100, false);
  ChangedBlockMap::All().Mark(&extent);
  EXPECT_TRUE(extent.changed);
  EXPECT_EQ(extent.size_bytes, 100u);
}

TEST(ChangedBlockMap, LeavesTheMarksOfTheSource) {
  Extent extent = Whole(100, false);
  ChangedBlockMap::FromSource().Mark(&extent);
  EXPECT_FALSE(extent.changed);
}

TEST(ChangedBlockMap, MarksNothingForAnEmptyList) {
  const Result<ChangedBlockMap> map = ChangedBlockMap::FromExtents({}, 100);
  ASSERT_TRUE(map.ok());
  Extent extent = Whole(100, true);
  map->Mark(&extent);
  EXPECT_FALSE(extent.changed);
  EXPECT_EQ(extent.size_bytes, 100u);
}

TEST(ChangedBlockMap, RefusesListsThatAreNotAscendingInsideTheDisk) {
  const std::vector<std::vector<uint64_t>> bad = {
      {10},                            // a size is missing
      {10, 0},                         // empty
      {10, 10, 19, 5},                 // overlaps
      {50, 10, 10, 10},                // descends
      {90, 11},                        // passes the end
      {101, 1},                        // begins after the end
      {uint64_t{1} << 63, UINT64_MAX}  // would wrap around
  };
  for (const std::vector<uint64_t>& pairs : bad) {
    EXPECT_TRUE(
        ChangedBlockMap::FromExtents(pairs, 100).status().Is(reason::kChangedBlocksInvalid));
  }
}

}  // namespace
}  // namespace blockferry
