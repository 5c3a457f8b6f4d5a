#include "repository/naming.h"

namespace blockferry {

Naming::Naming(const Digest& naming_key)
    : chunk_key_(Blake3DeriveKey("Blockferry v1 chunk name", naming_key)),
      node_key_(Blake3DeriveKey("Blockferry v1 map node name", naming_key)),
      manifest_key_(Blake3DeriveKey("Blockferry v1 manifest code", naming_key)),
      pseudonym_key_(Blake3DeriveKey("Blockferry v1 pseudonym", naming_key)) {}

std::string Naming::Pseudonym(std::string_view identity) const {
  Digest digest = Blake3KeyedHash(pseudonym_key_, BytesOf(identity));
  return HexOf(Bytes(digest).first(16));
}

}  // namespace blockferry
