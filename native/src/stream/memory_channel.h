// The channel without a network in between: every call is handed to the target.
#ifndef BLOCKFERRY_STREAM_MEMORY_CHANNEL_H_
#define BLOCKFERRY_STREAM_MEMORY_CHANNEL_H_

#include "stream/channel.h"
#include "target/block_target.h"

namespace blockferry {

class MemoryChannel final : public Channel {
 public:
  // `target` outlives the channel.
  explicit MemoryChannel(BlockTarget* target) : target_(target) {}

  void FindLacking(std::span<const Digest> names, std::span<bool> lacks) override {
    target_->FindLacking(names, lacks);
  }
  std::optional<BaseChunk> ReadBase(uint64_t block_index, MutableBytes plain) override {
    return target_->ReadBase(block_index, plain);
  }
  Result<bool> Offer(uint64_t block_index, const Digest& name) override {
    return target_->Offer(block_index, name);
  }
  Result<bool> Send(const Frame& frame) override { return target_->Put(frame); }
  Status Keep(uint64_t first_block, uint64_t end_block) override {
    return target_->Keep(first_block, end_block);
  }
  void CountRead(uint64_t bytes) override { target_->CountRead(bytes); }
  Result<std::optional<Digest>> Seal() override { return target_->Seal(); }

 private:
  BlockTarget* target_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_MEMORY_CHANNEL_H_
