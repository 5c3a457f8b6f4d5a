#include "diff/page_run.h"

#include <gtest/gtest.h>

#include <vector>

namespace blockferry {
namespace {

std::vector<std::pair<size_t, size_t>> DifferentRuns(Bytes one, Bytes other) {
  std::vector<std::pair<size_t, size_t>> runs;
  for (size_t from = 0;;) {
    const PageRun run = NextDifferentRun(one, other, from);
    if (run.size == 0) return runs;
    runs.emplace_back(run.offset, run.size);
    from = run.end();
  }
}

TEST(PageRun, JoinsNeighboursAndKeepsToWholePages) {
  const ByteVector one(16 * kPageSize);
  ByteVector other = one;
  other[2 * kPageSize + 17] = std::byte{1};
  other[3 * kPageSize] = std::byte{1};
  other[5 * kPageSize - 1] = std::byte{1};
  other[15 * kPageSize] = std::byte{1};
  const std::vector<std::pair<size_t, size_t>> expected = {{2 * kPageSize, 3 * kPageSize},
                                                           {15 * kPageSize, kPageSize}};
  EXPECT_EQ(DifferentRuns(one, other), expected);
}

TEST(PageRun, EndsAtAShortLastPage) {
  const ByteVector one(kPageSize + 512);
  ByteVector other = one;
  other.back() = std::byte{1};
  const std::vector<std::pair<size_t, size_t>> expected = {{kPageSize, 512}};
  EXPECT_EQ(DifferentRuns(one, other), expected);
  EXPECT_EQ(NextNonZeroRun(other, 0).offset, kPageSize);
  EXPECT_EQ(NextNonZeroRun(other, 0).size, 512u);
}

TEST(PageRun, FindsNothingInEqualOrNoBytes) {
  const ByteVector bytes(3 * kPageSize, std::byte{7});
  EXPECT_TRUE(DifferentRuns(bytes, bytes).empty());
  EXPECT_TRUE(DifferentRuns({}, {}).empty());
  EXPECT_EQ(NextNonZeroRun(ByteVector(kPageSize), 0).size, 0u);
}

}  // namespace
}  // namespace blockferry
