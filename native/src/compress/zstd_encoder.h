#ifndef BLOCKFERRY_COMPRESS_ZSTD_ENCODER_H_
#define BLOCKFERRY_COMPRESS_ZSTD_ENCODER_H_

#include <memory>

#include "compress/codec.h"

namespace blockferry {

// One Zstandard frame (RFC 8878) with the content size and without a checksum: the record
// around it has a digest. A block that does not shrink by at least 1/32 is stored, so that reading
// it back costs nothing.
class ZstdEncoder final : public Encoder {
 public:
  // REQUIRES: a level from kZstdLevelMin to kZstdLevelMax.
  explicit ZstdEncoder(int level);
  ~ZstdEncoder() override;
  EncodedBlock Encode(Bytes plain, MutableBytes out) override;

 private:
  struct Context;
  std::unique_ptr<Context> context_;
  int level_;
};

Status DecodeZstd(Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_ZSTD_ENCODER_H_
