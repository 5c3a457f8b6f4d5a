// For tests only: chunks and nodes in memory, some of which are missing when a test says so.
#ifndef BLOCKFERRY_STREAM_MEMORY_CHUNKS_H_
#define BLOCKFERRY_STREAM_MEMORY_CHUNKS_H_

#include <algorithm>
#include <map>
#include <string>

#include "repository/chunk_reader.h"
#include "repository/map_writer.h"
#include "repository/naming.h"

namespace blockferry {

class MemoryChunks final : public ChunkReader, public MapNodeSink {
 public:
  Digest AddChunk(Bytes plain) {
    const Digest name = naming_.ChunkName(plain);
    chunks_[HexOf(name)] = ByteVector(plain.begin(), plain.end());
    return name;
  }
  Result<Digest> PutNode(Bytes node) override {
    const Digest name = naming_.NodeName(node);
    nodes_[HexOf(name)] = ByteVector(node.begin(), node.end());
    return name;
  }
  const Naming& naming() const { return naming_; }
  void Lose(const Digest& name) {
    chunks_.erase(HexOf(name));
    nodes_.erase(HexOf(name));
  }

  Status ReadChunk(const Digest& name, MutableBytes plain, Proof, uint64_t* stored_size) override {
    const auto found = chunks_.find(HexOf(name));
    if (found == chunks_.end()) return Status(reason::kChunkMissing, "no such chunk");
    if (found->second.size() != plain.size()) return Status(reason::kBlockCorrupt, "its size");
    std::copy(found->second.begin(), found->second.end(), plain.begin());
    *stored_size = plain.size();
    return Status();
  }
  Result<size_t> ReadNode(const Digest& name, MutableBytes buffer) override {
    const auto found = nodes_.find(HexOf(name));
    if (found == nodes_.end()) return Status(reason::kChunkMissing, "no such node");
    std::copy(found->second.begin(), found->second.end(), buffer.begin());
    return found->second.size();
  }

 private:
  Naming naming_{Digest{}};
  std::map<std::string, ByteVector> chunks_;
  std::map<std::string, ByteVector> nodes_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_MEMORY_CHUNKS_H_
