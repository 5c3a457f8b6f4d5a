// Compiled for AVX-512, see CMakeLists.txt.
#if defined(__x86_64__)

#include "core/blake3_lanes.h"

namespace blockferry::blake3 {

void HashSixteenAvx512(const std::byte* const* inputs, const LaneOptions& options,
                       uint32_t (*out)[8]) {
  HashVectors<16>(inputs, options, out);
}

}  // namespace blockferry::blake3

#endif
