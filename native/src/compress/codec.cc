#include "compress/codec.h"

#include "compress/lz4_encoder.h"
#include "compress/stored_encoder.h"
#include "compress/zstd_encoder.h"

namespace blockferry {

std::unique_ptr<Encoder> NewEncoder(const Compression& compression) {
  switch (compression.codec) {
    case Codec::kStored:
      break;
    case Codec::kLz4:
      return std::make_unique<Lz4Encoder>();
    case Codec::kZstd:
      return std::make_unique<ZstdEncoder>(compression.level);
  }
  return std::make_unique<StoredEncoder>();
}

Status Decode(Codec codec, Bytes encoded, MutableBytes plain) {
  switch (codec) {
    case Codec::kStored:
      return DecodeStored(encoded, plain);
    case Codec::kLz4:
      return DecodeLz4(encoded, plain);
    case Codec::kZstd:
      return DecodeZstd(encoded, plain);
  }
  return Status(reason::kBlockCorrupt,
                "decode a block: codec " + std::to_string(static_cast<int>(codec)) + " is unknown",
                {{"codec", std::to_string(static_cast<int>(codec))}});
}

}  // namespace blockferry
