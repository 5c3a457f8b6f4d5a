#include "compress/stored_encoder.h"

#include <algorithm>

namespace blockferry {

EncodedBlock Store(Bytes plain, MutableBytes out) {
  std::copy(plain.begin(), plain.end(), out.begin());
  return {Codec::kStored, out.first(plain.size())};
}

EncodedBlock StoredEncoder::Encode(Bytes plain, MutableBytes out) { return Store(plain, out); }

Status DecodeStored(Bytes encoded, MutableBytes plain) {
  if (encoded.size() != plain.size()) {
    return Status(reason::kBlockCorrupt, "decode a stored block: it has " +
                                             std::to_string(encoded.size()) + " of " +
                                             std::to_string(plain.size()) + " bytes");
  }
  std::copy(encoded.begin(), encoded.end(), plain.begin());
  return Status();
}

}  // namespace blockferry
