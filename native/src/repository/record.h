// A record of a pack: a header that describes the stored bytes, and these. See pack_format.h.
#ifndef BLOCKFERRY_REPOSITORY_RECORD_H_
#define BLOCKFERRY_REPOSITORY_RECORD_H_

#include <cstdint>

#include "core/blake3.h"
#include "core/codec.h"
#include "core/status.h"
#include "repository/record_seal.h"

namespace blockferry {

// Values on disk. 4 and 5 are reserved for lists of pieces and page fingerprints.
enum class RecordType : uint8_t { kChunk = 1, kMapNode = 2, kPatch = 3 };

// Types that are looked up together.
class RecordTypes {
 public:
  constexpr RecordTypes(RecordType type) : bits_(BitOf(type)) {}  // Implicit: one type is a set.
  constexpr RecordTypes(RecordType one, RecordType other) : bits_(BitOf(one) | BitOf(other)) {}
  constexpr bool Has(RecordType type) const { return (bits_ & BitOf(type)) != 0; }

 private:
  static constexpr uint32_t BitOf(RecordType type) {
    return 1u << (static_cast<uint8_t>(type) & 31);
  }
  uint32_t bits_;
};

// What a map's leaf names: whole, or as a patch. The name does not tell which.
inline constexpr RecordTypes kWholeOrPatch{RecordType::kChunk, RecordType::kPatch};

// A record that is about to be stored. `stored` is what `codec` made of the plain bytes, of a patch
// what patch.h says. REQUIRES: stored.size() <= plain_size, and equal to it exactly for kStored;
// for a patch at most pack_format::kStoredSizeMax.
struct NewRecord {
  RecordType type = RecordType::kChunk;
  Codec codec = Codec::kStored;
  Digest name;
  uint32_t plain_size = 0;
  Bytes stored;
  // The whole record as it lies in a pack, when EncodeRecord has made it already; else empty.
  Bytes encoded = {};
  // Of a patch: the whole chunk that it is laid over.
  Digest base{};
  bool is_encrypted = false;
};

// Writes the record into `out`, which has RecordSize(); the stored bytes may lie in their place
// there already. The digest in the header covers all of it. An encrypted record needs a sealer.
void EncodeRecord(const NewRecord& record, MutableBytes out, Sealer* sealer = nullptr);

// Header and stored bytes, and a tag for an encrypted record.
size_t RecordSize(const NewRecord& record);

// What of a record's stored bytes stays in clear: the head of a patch.
size_t ClearSize(RecordType type);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_RECORD_H_
