// A clock that stands still until a test moves it.
#ifndef BLOCKFERRY_CORE_TEST_CLOCK_H_
#define BLOCKFERRY_CORE_TEST_CLOCK_H_

#include "core/clock.h"

namespace blockferry {

class TestClock final : public Clock {
 public:
  ClockReading Read() override { return reading; }
  ClockReading reading{1'800'000'000, {std::byte{1}}, 100};
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_TEST_CLOCK_H_
