// The unit that travels from the mover to the target: one encoded block, as the record it will be.
#ifndef BLOCKFERRY_STREAM_FRAME_H_
#define BLOCKFERRY_STREAM_FRAME_H_

#include <cstdint>

#include "core/blake3.h"
#include "repository/record.h"

namespace blockferry {

struct Frame {
  uint64_t block_index = 0;
  NewRecord record;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_FRAME_H_
