// The clocks of this machine that repository time is made of. Tests have one of their own.
#ifndef BLOCKFERRY_CORE_CLOCK_H_
#define BLOCKFERRY_CORE_CLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace blockferry {

struct ClockReading {
  uint64_t wall = 0;  // Seconds since 1970, as whoever sets the clock wants it.
  // Which start of which machine this is, and the seconds since then, sleep included.
  std::array<std::byte, 16> boot_id{};
  uint64_t since_boot = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual ClockReading Read() = 0;
};

Clock& SystemClock();

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_CLOCK_H_
