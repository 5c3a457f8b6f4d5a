// Compiled for AVX2, see CMakeLists.txt.
#if defined(__x86_64__)

#include "core/blake3_lanes.h"

namespace blockferry::blake3 {

void HashEightAvx2(const std::byte* const* inputs, const LaneOptions& options, uint32_t (*out)[8]) {
  HashVectors<8>(inputs, options, out);
}

void HashFourAvx2(const std::byte* const* inputs, const LaneOptions& options, uint32_t (*out)[8]) {
  HashVectors<4>(inputs, options, out);
}

}  // namespace blockferry::blake3

#endif
