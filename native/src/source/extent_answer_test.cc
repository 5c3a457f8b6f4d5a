#include "source/extent_answer.h"

#include <gtest/gtest.h>

namespace blockferry {
namespace {

ContextAnswer Answer(std::vector<uint32_t> entries) { return {true, std::move(entries)}; }

constexpr uint32_t kData = 0, kHoleZero = 3, kHoleOnly = 1, kClean = 0, kDirty = 1;

TEST(ExtentAnswer, JoinsBothContextsUpToTheShorterAnswer) {
  const ContextAnswer allocation = Answer({100, kData, 100, kHoleZero});
  const ContextAnswer bitmap = Answer({50, kDirty, 100, kClean});
  std::vector<Extent> extents;
  ASSERT_TRUE(MergeAnswers(1000, 5000, &allocation, &bitmap, &extents).ok());
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_EQ(extents[0].offset_bytes, 1000u);
  EXPECT_EQ(extents[0].size_bytes, 50u);
  EXPECT_TRUE(extents[0].allocated && extents[0].changed);
  EXPECT_EQ(extents[1].size_bytes, 50u);
  EXPECT_TRUE(extents[1].allocated && !extents[1].changed);
  EXPECT_EQ(extents[2].end_bytes(), 1150u);
  EXPECT_TRUE(!extents[2].allocated && !extents[2].changed);
}

TEST(ExtentAnswer, ReadsAHoleThatIsNotPromisedToBeZero) {
  const ContextAnswer allocation = Answer({100, kHoleOnly});
  std::vector<Extent> extents;
  ASSERT_TRUE(MergeAnswers(0, 100, &allocation, nullptr, &extents).ok());
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_TRUE(extents[0].allocated);
  EXPECT_TRUE(extents[0].changed);
}

TEST(ExtentAnswer, MakesOneExtentOfNeighboursInTheSameState) {
  const ContextAnswer allocation = Answer({10, kData, 20, kData, 30, kHoleZero, 40, kHoleZero});
  std::vector<Extent> extents;
  ASSERT_TRUE(MergeAnswers(0, 100, &allocation, nullptr, &extents).ok());
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].size_bytes, 30u);
  EXPECT_EQ(extents[1].size_bytes, 70u);
}

TEST(ExtentAnswer, AcceptsALastExtentBeyondTheRequestButInsideTheDisk) {
  const ContextAnswer allocation = Answer({4000, kHoleZero});
  std::vector<Extent> extents;
  ASSERT_TRUE(MergeAnswers(1000, 5000, &allocation, nullptr, &extents).ok());
  EXPECT_EQ(extents[0].end_bytes(), 5000u);
}

TEST(ExtentAnswer, RefusesWhatCannotBeTrusted) {
  const ContextAnswer good = Answer({100, kData});
  const ContextAnswer none;
  const ContextAnswer empty = Answer({});
  const ContextAnswer cut = Answer({100});
  const ContextAnswer no_bytes = Answer({50, kData, 0, kData});
  const ContextAnswer beyond = Answer({60, kData, 41, kData});
  for (const ContextAnswer* bad : {&none, &empty, &cut, &no_bytes, &beyond}) {
    std::vector<Extent> extents;
    EXPECT_TRUE(MergeAnswers(0, 100, bad, nullptr, &extents).Is(reason::kSourceReadFailed));
    EXPECT_TRUE(MergeAnswers(0, 100, &good, bad, &extents).Is(reason::kSourceReadFailed));
    EXPECT_TRUE(extents.empty());
  }
}

}  // namespace
}  // namespace blockferry
