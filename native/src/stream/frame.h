// The unit that travels from the mover to the target: a header and an encoded block.
#ifndef BLOCKFERRY_STREAM_FRAME_H_
#define BLOCKFERRY_STREAM_FRAME_H_

#include <cstdint>

#include "compress/codec.h"
#include "core/blake3.h"

namespace blockferry {

struct Frame {
  uint64_t block_index = 0;
  Digest name{};
  uint32_t plain_size_bytes = 0;
  EncodedBlock encoded;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_FRAME_H_
