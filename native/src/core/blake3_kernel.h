// Which implementation of BLAKE3's inner loop this processor runs: the one dispatch of the core.
#ifndef BLOCKFERRY_CORE_BLAKE3_KERNEL_H_
#define BLOCKFERRY_CORE_BLAKE3_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace blockferry::blake3 {

inline constexpr size_t kBlockSize = 64;

inline constexpr uint32_t kInitial[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                         0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

// Which message word each step of each round takes; a row is the one before it, permuted.
inline constexpr uint8_t kSchedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

// What the inputs of one call share.
struct LaneOptions {
  const uint32_t* key;  // 8 words.
  size_t block_count;   // Of each input.
  uint64_t counter;     // Of the first input; each further one has counter_step more.
  uint64_t counter_step;
  uint32_t flags;        // Of all blocks,
  uint32_t first_flags;  // and of the first
  uint32_t last_flags;   // and the last block of an input besides.
};

// Fills out[i] with the chaining value of inputs[i], for as many inputs as the kernel has lanes.
using HashLanes = void (*)(const std::byte* const* inputs, const LaneOptions& options,
                           uint32_t (*out)[8]);

struct Kernel {
  size_t lanes;
  HashLanes hash;
};

enum class Level { kPortable, kAvx2, kAvx512 };

const char* NameOf(Level level);

// What this processor can run; kPortable always, the best one last.
std::span<const Level> SupportedLevels();

// The kernels of the level in use, the widest first; the last one has 4 lanes.
std::span<const Kernel> Kernels();

// For tests and measurements: from now on another level than the best. REQUIRES: it is supported;
// nobody hashes meanwhile.
void UseLevel(Level level);

// Defined where the compiler may use the instruction set; called only where it is supported.
void HashEightAvx2(const std::byte* const* inputs, const LaneOptions& options, uint32_t (*out)[8]);
void HashSixteenAvx512(const std::byte* const* inputs, const LaneOptions& options,
                       uint32_t (*out)[8]);
void HashFourAvx2(const std::byte* const* inputs, const LaneOptions& options, uint32_t (*out)[8]);

}  // namespace blockferry::blake3

#endif  // BLOCKFERRY_CORE_BLAKE3_KERNEL_H_
