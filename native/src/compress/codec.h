// The third stage: gives back the smaller of encoded and stored.
//
// An encoder is asked for one block at a time and may keep state between blocks, so one thread
// uses one encoder. Decoding needs no state and never writes past the plain size
// that the record promises.
#ifndef BLOCKFERRY_COMPRESS_CODEC_H_
#define BLOCKFERRY_COMPRESS_CODEC_H_

#include <cstdint>
#include <memory>

#include "core/bytes.h"
#include "core/codec.h"
#include "core/status.h"

namespace blockferry {

struct EncodedBlock {
  Codec codec = Codec::kStored;
  Bytes bytes;
};

class Encoder {
 public:
  virtual ~Encoder() = default;
  // Into `out`, of which the result is the beginning. REQUIRES: out is as large as plain.
  virtual EncodedBlock Encode(Bytes plain, MutableBytes out) = 0;
};

// What a policy chooses.
struct Compression {
  Codec codec = Codec::kLz4;
  int level = 0;  // Of zstd only; 0 for the others.
};

inline constexpr int kZstdLevelMin = 1;
inline constexpr int kZstdLevelMax = 19;

std::unique_ptr<Encoder> NewEncoder(const Compression& compression);

// Decodes into exactly `plain.size()` bytes; BLOCK_CORRUPT for anything else.
Status Decode(Codec codec, Bytes encoded, MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_COMPRESS_CODEC_H_
