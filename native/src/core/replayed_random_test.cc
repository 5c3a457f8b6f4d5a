#include "core/replayed_random.h"

#include <gtest/gtest.h>
#include <sys/random.h>

#include <mutex>
#include <optional>
#include <random>

#include "core/bytes.h"

namespace blockferry {
namespace {

std::mutex mutex;
std::optional<std::mt19937_64> replayed;

}  // namespace

ReplayedRandom::ReplayedRandom(uint64_t seed) {
  std::lock_guard lock(mutex);
  replayed.emplace(seed);
}

ReplayedRandom::~ReplayedRandom() {
  std::lock_guard lock(mutex);
  replayed.reset();
}

// Instead of the one in random.cc.
void FillRandom(MutableBytes bytes) {
  std::lock_guard lock(mutex);
  if (!replayed) {
    ASSERT_EQ(getrandom(bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return;
  }
  for (std::byte& byte : bytes) byte = static_cast<std::byte>((*replayed)());
}

namespace {

TEST(ReplayedRandomTest, GivesTheSameForTheSameSeedOnlyWhileItLives) {
  std::byte bytes[4][16];
  for (int i = 0; i < 2; ++i) {
    const ReplayedRandom random(7);
    FillRandom(bytes[i]);
  }
  FillRandom(bytes[2]);
  FillRandom(bytes[3]);
  EXPECT_TRUE(Equal(bytes[0], bytes[1]));
  EXPECT_FALSE(Equal(bytes[0], bytes[2]));
  EXPECT_FALSE(Equal(bytes[2], bytes[3]));
}

}  // namespace
}  // namespace blockferry
