// A record of a pack: a header that describes the stored bytes, and these. See pack_format.h.
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
  // The whole record as it lies in a pack, when EncodeRecord has made it already; else empty.
  Bytes encoded = {};
};

// Writes the record into `out`, which has kRecordHeaderSize and the stored bytes' size; the stored
// bytes may lie in their place there already. The digest in the header covers all of it.
void EncodeRecord(const NewRecord& record, MutableBytes out);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_RECORD_H_
