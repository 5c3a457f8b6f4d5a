#include "compress/lz4_encoder.h"

#include <lz4.h>

#include "compress/stored_encoder.h"

namespace blockferry {

EncodedBlock Lz4Encoder::Encode(Bytes plain, MutableBytes out) {
  const size_t worth_bytes = plain.size() - plain.size() / 32;
  // LZ4 gives up as soon as the block does not fit, which is cheaper than encoding it all.
  const int size = LZ4_compress_default(
      reinterpret_cast<const char*>(plain.data()), reinterpret_cast<char*>(out.data()),
      static_cast<int>(plain.size()), static_cast<int>(worth_bytes));
  if (size <= 0 || plain.size() < 32) return Store(plain, out);
  return {Codec::kLz4, out.first(static_cast<size_t>(size))};
}

Status DecodeLz4(Bytes encoded, MutableBytes plain) {
  const int size = LZ4_decompress_safe(
      reinterpret_cast<const char*>(encoded.data()), reinterpret_cast<char*>(plain.data()),
      static_cast<int>(encoded.size()), static_cast<int>(plain.size()));
  if (size >= 0 && static_cast<size_t>(size) == plain.size()) return Status();
  return Status(reason::kBlockCorrupt, "decode an LZ4 block of " + std::to_string(encoded.size()) +
                                           " bytes: it does not give the " +
                                           std::to_string(plain.size()) + " bytes it promises");
}

}  // namespace blockferry
