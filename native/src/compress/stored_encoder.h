#ifndef BLOCKFERRY_COMPRESS_STORED_ENCODER_H_
#define BLOCKFERRY_COMPRESS_STORED_ENCODER_H_

#include "compress/codec.h"

namespace blockferry {

// Blocks as they are, for disks that are known not to shrink.
class StoredEncoder final : public Encoder {
 public:
  EncodedBlock Encode(Bytes plain, MutableBytes out) override;
};

// A block as it is, for encoders whose result would not be smaller.
EncodedBlock Store(Bytes plain, MutableBytes out);

Status DecodeStored(Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_STORED_ENCODER_H_
