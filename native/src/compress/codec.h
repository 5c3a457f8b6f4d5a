// The third stage: gives back the smaller of encoded and stored.
//
// A codec is asked for one block at a time and may keep a buffer between blocks, so one
// thread uses one codec. Decoding needs no state and never writes past the plain size
// that the record promises.
#ifndef BLOCKFERRY_COMPRESS_CODEC_H_
#define BLOCKFERRY_COMPRESS_CODEC_H_

#include <cstdint>
#include <memory>

#include "core/bytes.h"
#include "core/status.h"

namespace blockferry {

// The numbers are part of the repository's format: never changed, never reused.
enum class CodecId : uint8_t { kStored = 0, kLz4 = 1 };

struct EncodedBlock {
  CodecId codec = CodecId::kStored;
  // Valid until the next call of the codec, or as long as the plain bytes when stored.
  Bytes bytes;
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual EncodedBlock Encode(Bytes plain) = 0;
};

std::unique_ptr<Codec> NewCodec(CodecId id);

// Decodes into exactly `plain.size()` bytes; BLOCK_CORRUPT for anything else.
Status Decode(CodecId id, Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_CODEC_H_
