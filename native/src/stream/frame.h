// The unit that travels from the mover to the target: one encoded block, as the record it will be.
#ifndef BLOCKFERRY_STREAM_FRAME_H_
#define BLOCKFERRY_STREAM_FRAME_H_

#include <cstdint>

#include "compress/codec.h"
#include "core/blake3.h"
#include "repository/record.h"

namespace blockferry {

struct Frame {
  uint64_t block_index = 0;
  NewRecord record;
};

// Encodes a block into `buffer`, where the frame's bytes lie then.
// REQUIRES: the buffer has FrameSizeMax(plain.size()) bytes.
Frame MakeFrame(uint64_t block_index, const Digest& name, Bytes plain, Encoder* encoder,
                MutableBytes buffer);

size_t FrameSizeMax(size_t plain_size);

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_FRAME_H_
