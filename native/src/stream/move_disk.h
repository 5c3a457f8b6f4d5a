// A block's journey: source → diff → compress → stream → target, as one plain loop.
//
// stream/pipeline.h does the same with all cores; a test holds the two equal. This one says what
// happens to a block, in order.
#ifndef BLOCKFERRY_STREAM_MOVE_DISK_H_
#define BLOCKFERRY_STREAM_MOVE_DISK_H_

#include <optional>

#include "compress/codec.h"
#include "core/cancel.h"
#include "core/progress.h"
#include "diff/block_plan.h"
#include "repository/block_geometry.h"
#include "repository/naming.h"
#include "source/block_source.h"
#include "stream/channel.h"
#include "stream/frame_maker.h"

namespace blockferry {

// A run of data is read as one: so many blocks at most.
inline constexpr uint64_t kReadBlockCountMax = kReadSizeBytesMax / kBlockSize;

// The stages of one disk's line, all owned by the caller.
struct Line {
  BlockSource* source;
  BlockPlan* plan;
  const Naming* naming;
  Compression compression;
  Channel* channel;
  const Cancel* cancel;
  Progress* progress;
  WriterKey* writer_key = nullptr;  // Null when records are not encrypted.

  uint64_t OffsetOf(uint64_t block) const { return block * kBlockSize; }
  // The end of the last block in bytes, which the end of the disk may cut off.
  uint64_t EndOf(const BlockRun& run) const;
  size_t SizeOf(const BlockRun& run) const { return EndOf(run) - OffsetOf(run.first_block); }
};

// Block `position` of a run, counted from 0, in the bytes of the run.
Bytes BlockIn(Bytes run, uint64_t position);

// Sends a frame of `plain`; a patch that the target cannot take is made anew as a whole block.
// `buffer` is the frame's own.
Status SendFrame(const Line& line, const Frame& frame, Bytes plain, FrameMaker* maker,
                 MutableBytes buffer);

// Moves every block that the plan has left and returns the root of the disk's map.
Result<std::optional<Digest>> MoveDisk(const Line& line);

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_MOVE_DISK_H_
