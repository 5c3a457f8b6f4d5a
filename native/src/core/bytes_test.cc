#include "core/bytes.h"

#include <gtest/gtest.h>

namespace blockferry {
namespace {

// A block of zeroes is not stored: a single byte that is overlooked would be lost.
TEST(IsZero, SeesEverySingleBit) {
  for (size_t size : {0, 1, 7, 8, 15, 16, 17, 24, 31, 32, 33, 512, 4096}) {
    ByteVector block(size);
    EXPECT_TRUE(IsZero(block)) << size;
    for (size_t at = 0; at < size; ++at) {
      block[at] = static_cast<std::byte>(1 << at % 8);
      EXPECT_FALSE(IsZero(block)) << "byte " << at << " of " << size;
      block[at] = std::byte{0};
    }
  }
}

TEST(IsZero, IsNotFooledByBytesThatRepeat) {
  EXPECT_FALSE(IsZero(ByteVector(64 * 1024, std::byte{0xff})));
}

}  // namespace
}  // namespace blockferry
