// The fourth stage: carries the blocks of one disk from the mover to the target.
//
// Names go first, and only blocks that the target lacks follow as frames. Any thread may ask what
// is lacking; one at a time does the rest. Block indexes ascend strictly over all calls, and what
// is never mentioned is a hole.
#ifndef BLOCKFERRY_STREAM_CHANNEL_H_
#define BLOCKFERRY_STREAM_CHANNEL_H_

#include <cstdint>
#include <optional>
#include <span>

#include "core/status.h"
#include "repository/patch.h"
#include "stream/frame.h"

namespace blockferry {

class Channel {
 public:
  virtual ~Channel() = default;

  // Sets lacks[i] when the target lacks the chunk names[i]. A hint: a chunk may come or go before
  // its block is offered or sent.
  virtual void FindLacking(std::span<const Digest> names, std::span<bool> lacks) = 0;

  // Fills `plain` with what a patch of the block may be laid over: the whole chunk behind the block
  // in an earlier backup. Without value when there is none of that size, or it cannot be read. Any
  // thread.
  virtual std::optional<BaseChunk> ReadBase(uint64_t block_index, MutableBytes plain) = 0;

  // True when the target lacks the block and waits for its frame; otherwise the block is
  // named and done.
  virtual Result<bool> Offer(uint64_t block_index, const Digest& name) = 0;
  // False for a patch whose base the target lacks by now: it waits for the whole block.
  virtual Result<bool> Send(const Frame& frame) = 0;

  // Blocks [first_block, end_block) are those of the base.
  virtual Status Keep(uint64_t first_block, uint64_t end_block) = 0;

  // Bytes that were read from the source for the blocks since the last call. The target
  // counts them, so that a run that continues after a crash knows the sum.
  virtual void CountRead(uint64_t bytes) = 0;

  // Everything was sent; returns the root of the disk's map, absent without data.
  virtual Result<std::optional<Digest>> Seal() = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_CHANNEL_H_
