// What the programs that run the whole line share: failing, and counting time.
#ifndef BLOCKFERRY_BENCH_LINE_H_
#define BLOCKFERRY_BENCH_LINE_H_

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "core/status.h"

namespace blockferry {

[[noreturn]] inline void Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  _exit(1);
}

template <typename T>
T Take(Result<T> result) {
  if (!result.ok()) Fail(result.status());
  return *std::move(result);
}

// Seconds; of the CPU those of all threads.
struct Times {
  double wall = 0;
  double cpu = 0;

  static Times Now() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return {std::chrono::duration<double>(now).count(),
            seconds(usage.ru_utime) + seconds(usage.ru_stime)};
  }
  Times Since(const Times& begin) const { return {wall - begin.wall, cpu - begin.cpu}; }
};

}  // namespace blockferry

#endif  // BLOCKFERRY_BENCH_LINE_H_
