#ifndef BLOCKFERRY_COMPRESS_STORED_CODEC_H_
#define BLOCKFERRY_COMPRESS_STORED_CODEC_H_

#include "compress/codec.h"

namespace blockferry {

// Blocks as they are, for disks that are known not to shrink.
class StoredCodec final : public Codec {
 public:
  EncodedBlock Encode(Bytes plain) override { return {CodecId::kStored, plain}; }
};

Status DecodeStored(Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_STORED_CODEC_H_
