// A block's journey: source → diff → compress → stream → target, as one plain loop.
#ifndef BLOCKFERRY_STREAM_MOVE_DISK_H_
#define BLOCKFERRY_STREAM_MOVE_DISK_H_

#include <optional>

#include "compress/codec.h"
#include "core/cancel.h"
#include "core/progress.h"
#include "diff/block_plan.h"
#include "repository/naming.h"
#include "source/block_source.h"
#include "stream/channel.h"

namespace blockferry {

// The stages of one disk's line, all owned by the caller.
struct Line {
  BlockSource* source;
  BlockPlan* plan;
  const Naming* naming;
  Encoder* encoder;
  Channel* channel;
  const Cancel* cancel;
  Progress* progress;
};

// Moves every block that the plan has left and returns the root of the disk's map.
Result<std::optional<Digest>> MoveDisk(const Line& line);

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_MOVE_DISK_H_
