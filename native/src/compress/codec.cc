#include "compress/codec.h"

#include "compress/lz4_codec.h"
#include "compress/stored_codec.h"

namespace blockferry {

std::unique_ptr<Codec> NewCodec(CodecId id) {
  if (id == CodecId::kLz4) return std::make_unique<Lz4Codec>();
  return std::make_unique<StoredCodec>();
}

Status Decode(CodecId id, Bytes encoded, MutableBytes plain) {
  switch (id) {
    case CodecId::kStored:
      return DecodeStored(encoded, plain);
    case CodecId::kLz4:
      return DecodeLz4(encoded, plain);
  }
  return Status(reason::kBlockCorrupt,
                "decode a block: codec " + std::to_string(static_cast<int>(id)) + " is unknown",
                {{"codec", std::to_string(static_cast<int>(id))}});
}

}  // namespace blockferry
