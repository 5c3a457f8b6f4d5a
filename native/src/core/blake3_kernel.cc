#include "core/blake3_kernel.h"

#include <cassert>
#include <utility>

#include "core/blake3_lanes.h"

namespace blockferry::blake3 {
namespace {

// SSE2 on x86-64, NEON on arm64: what every processor of the kind has.
constexpr Kernel kPortable[] = {{4, HashVectors<4>}};

#if defined(__x86_64__)
constexpr Kernel kAvx2[] = {{8, HashEightAvx2}, {4, HashFourAvx2}};
constexpr Kernel kAvx512[] = {{16, HashSixteenAvx512}, {8, HashEightAvx2}, {4, HashFourAvx2}};
#endif

constexpr Level kLevels[] = {Level::kPortable, Level::kAvx2, Level::kAvx512};

size_t CountSupported() {
#if defined(__x86_64__)
  // The system has to keep the registers over a task switch, too; the builtin asks for both.
  if (!__builtin_cpu_supports("avx2")) return 1;
  const bool is_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512bw");
  return is_avx512 ? 3 : 2;
#else
  return 1;
#endif
}

std::span<const Kernel> KernelsOf(Level level) {
#if defined(__x86_64__)
  if (level == Level::kAvx512) return kAvx512;
  if (level == Level::kAvx2) return kAvx2;
#endif
  assert(level == Level::kPortable);
  return kPortable;
}

std::span<const Kernel>& InUse() {
  static std::span<const Kernel> kernels = KernelsOf(SupportedLevels().back());
  return kernels;
}

}  // namespace

const char* NameOf(Level level) {
  switch (level) {
    case Level::kPortable:
      return "portable";
    case Level::kAvx2:
      return "AVX2";
    case Level::kAvx512:
      return "AVX-512";
  }
  return "unknown";
}

std::span<const Level> SupportedLevels() {
  static const size_t count = CountSupported();
  return {kLevels, count};
}

std::span<const Kernel> Kernels() { return InUse(); }

void UseLevel(Level level) { InUse() = KernelsOf(level); }

}  // namespace blockferry::blake3
