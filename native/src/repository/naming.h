// The keys of one repository, all derived from its naming key, and what they name.
//
// Each purpose has its own key, so that no content of a disk can pose as a map node, nor a map node
// as a chunk. Thread-safe: nothing changes after construction.
#ifndef BLOCKFERRY_REPOSITORY_NAMING_H_
#define BLOCKFERRY_REPOSITORY_NAMING_H_

#include <string>
#include <string_view>

#include "core/blake3.h"

namespace blockferry {

class Naming {
 public:
  explicit Naming(const Digest& naming_key);

  // The name of a block's plain bytes.
  Digest ChunkName(Bytes plain) const { return Blake3KeyedHash(chunk_key_, plain); }
  Digest NodeName(Bytes node) const { return Blake3KeyedHash(node_key_, node); }
  Digest ManifestCode(Bytes manifest) const { return Blake3KeyedHash(manifest_key_, manifest); }
  // 32 hex digits.
  std::string Pseudonym(std::string_view identity) const;

 private:
  Digest chunk_key_;
  Digest node_key_;
  Digest manifest_key_;
  Digest pseudonym_key_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_NAMING_H_
