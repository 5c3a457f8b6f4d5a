// The fifth stage of a backup: where the blocks of one disk are stored. The calls, their order and
// their threads are those of stream/channel.h.
#ifndef BLOCKFERRY_TARGET_BLOCK_TARGET_H_
#define BLOCKFERRY_TARGET_BLOCK_TARGET_H_

#include <cstdint>
#include <optional>
#include <span>

#include "core/status.h"
#include "repository/patch.h"
#include "stream/frame.h"

namespace blockferry {

class BlockTarget {
 public:
  virtual ~BlockTarget() = default;
  virtual void FindLacking(std::span<const Digest> names, std::span<bool> lacks) = 0;
  virtual std::optional<BaseChunk> ReadBase(uint64_t block_index, MutableBytes plain) = 0;
  virtual Result<bool> Offer(uint64_t block_index, const Digest& name) = 0;
  virtual Result<bool> Put(const Frame& frame) = 0;
  virtual Status Keep(uint64_t first_block, uint64_t end_block) = 0;
  virtual void CountRead(uint64_t bytes) = 0;
  virtual Result<std::optional<Digest>> Seal() = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_BLOCK_TARGET_H_
