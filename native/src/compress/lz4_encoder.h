#ifndef BLOCKFERRY_COMPRESS_LZ4_ENCODER_H_
#define BLOCKFERRY_COMPRESS_LZ4_ENCODER_H_

#include "compress/codec.h"

namespace blockferry {

// LZ4's block format without a frame; the record around it has the sizes. A block that
// does not shrink by at least 1/32 is stored, so that reading it back costs nothing.
class Lz4Encoder final : public Encoder {
 public:
  EncodedBlock Encode(Bytes plain, MutableBytes out) override;
};

Status DecodeLz4(Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_LZ4_ENCODER_H_
