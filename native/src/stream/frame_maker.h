// Encodes blocks as frames: whole, or as the pages that changed when that is much less.
//
// A patch costs a second read at every restore and keeps its base from ever being collected, so it
// has to be worth it: see kPatchShareMax. Used by one thread.
#ifndef BLOCKFERRY_STREAM_FRAME_MAKER_H_
#define BLOCKFERRY_STREAM_FRAME_MAKER_H_

#include <memory>
#include <optional>

#include "compress/codec.h"
#include "stream/channel.h"

namespace blockferry {

// A patch takes at most this part of what the whole block took last: docs/adr/0008-patches.md.
#ifdef BLOCKFERRY_PATCH_SHARE
// Only bench/patches.sh builds with another share, to measure it.
inline constexpr double kPatchShareMax = BLOCKFERRY_PATCH_SHARE;
#else
inline constexpr double kPatchShareMax = 0.5;
#endif

size_t FrameSizeMax(size_t plain_size);

class FrameMaker {
 public:
  // Encrypts with `writer_key`, unless it is null. Both outlive the maker.
  FrameMaker(const Compression& compression, WriterKey* writer_key, Channel* channel);

  // The frame's bytes lie in `buffer`. REQUIRES: it has FrameSizeMax(plain.size()) bytes.
  Frame Make(uint64_t block_index, const Digest& name, Bytes plain, MutableBytes buffer);
  Frame MakeWhole(uint64_t block_index, const Digest& name, Bytes plain, MutableBytes buffer);

 private:
  // Without value when the block is better stored whole.
  std::optional<Frame> MakePatch(uint64_t block_index, const Digest& name, Bytes plain,
                                 MutableBytes buffer);

  // The record's stored bytes lie in their place in `buffer` already.
  Frame FrameOf(uint64_t block_index, NewRecord record, MutableBytes buffer);

  std::unique_ptr<Encoder> encoder_;
  std::optional<Sealer> sealer_;
  Channel* channel_;
  ByteVector base_;
  ByteVector pages_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_FRAME_MAKER_H_
