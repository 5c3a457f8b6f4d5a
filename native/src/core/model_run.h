// For tests only: how a model is told how long it runs, and how it tells what it met.
#ifndef BLOCKFERRY_CORE_MODEL_RUN_H_
#define BLOCKFERRY_CORE_MODEL_RUN_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace blockferry {

// From the environment: SEED plays a run again.
inline uint64_t NumberFrom(const char* variable, uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

// The last line of a model: `runs: 12, killed: 3`.
inline void ShowCounts(const std::vector<std::pair<const char*, uint64_t>>& counts) {
  for (size_t i = 0; i < counts.size(); ++i) {
    std::printf("%s%s: %llu", i == 0 ? "" : ", ", counts[i].first,
                static_cast<unsigned long long>(counts[i].second));
  }
  std::printf("\n");
}

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_MODEL_RUN_H_
