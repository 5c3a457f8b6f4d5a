// What a record of a pack is: its type, its codec, where it lies.
#ifndef BLOCKFERRY_REPOSITORY_RECORD_H_
#define BLOCKFERRY_REPOSITORY_RECORD_H_

#include <cstdint>

#include "core/blake3.h"
#include "core/codec.h"
#include "core/status.h"

namespace blockferry {

// Values on disk. 3 to 5 are reserved for patches, lists of pieces and page fingerprints.
enum class RecordType : uint8_t { kChunk = 1, kMapNode = 2 };

// A record that is about to be stored. `stored` is what `codec` made of the plain bytes;
// REQUIRES: stored.size() <= plain_size, and equal to it exactly for kStored.
struct NewRecord {
  RecordType type = RecordType::kChunk;
  Codec codec = Codec::kStored;
  Digest name;
  uint32_t plain_size = 0;
  Bytes stored;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_RECORD_H_
