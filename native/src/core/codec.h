// How the bytes of a stored block are encoded. Values on disk: never changed, never reused.
#ifndef BLOCKFERRY_CORE_CODEC_H_
#define BLOCKFERRY_CORE_CODEC_H_

#include <cstdint>

namespace blockferry {

enum class Codec : uint8_t { kStored = 0, kLz4 = 1, kZstd = 2 };

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_CODEC_H_
