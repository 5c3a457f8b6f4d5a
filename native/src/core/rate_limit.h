// Holds work of several threads below a number of bytes for each second.
#ifndef BLOCKFERRY_CORE_RATE_LIMIT_H_
#define BLOCKFERRY_CORE_RATE_LIMIT_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

#include "core/cancel.h"

namespace blockferry {

class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(uint64_t bytes_per_second = 0) : bytes_per_second_(bytes_per_second) {}

  // Counts bytes that were moved, and waits until they were due. CANCELLED soon after the request.
  Status Take(uint64_t bytes, const Cancel& cancel) {
    if (bytes_per_second_ == 0) return cancel.Check();
    const Time due = Account(bytes);
    for (Time now = Clock::now(); now < due; now = Clock::now()) {
      RETURN_IF_ERROR(cancel.Check());
      std::this_thread::sleep_for(std::min<Clock::duration>(due - now, kSlice));
    }
    return cancel.Check();
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  static constexpr std::chrono::milliseconds kSlice{100};

  // Time that passed without work is not made up for.
  Time Account(uint64_t bytes) {
    const std::chrono::duration<double> took(static_cast<double>(bytes) /
                                             static_cast<double>(bytes_per_second_));
    std::lock_guard lock(mutex_);
    due_ = std::max(due_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(took);
    return due_;
  }

  const uint64_t bytes_per_second_;
  std::mutex mutex_;
  Time due_{};
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_RATE_LIMIT_H_
