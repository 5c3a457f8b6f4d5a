#include "compress/codec.h"

#include "compress/lz4_encoder.h"
#include "compress/stored_encoder.h"

namespace blockferry {

std::unique_ptr<Encoder> NewEncoder(Codec codec) {
  if (codec == Codec::kLz4) return std::make_unique<Lz4Encoder>();
  return std::make_unique<StoredEncoder>();
}

Status Decode(Codec codec, Bytes encoded, MutableBytes plain) {
  switch (codec) {
    case Codec::kStored:
      return DecodeStored(encoded, plain);
    case Codec::kLz4:
      return DecodeLz4(encoded, plain);
  }
  return Status(reason::kBlockCorrupt,
                "decode a block: codec " + std::to_string(static_cast<int>(codec)) + " is unknown",
                {{"codec", std::to_string(static_cast<int>(codec))}});
}

}  // namespace blockferry
