#include "repository/record.h"

#include <cassert>
#include <cstring>

#include "core/endian.h"
#include "repository/pack_format.h"
#include "repository/patch.h"

namespace blockferry {

using namespace pack_format;

size_t RecordSize(const NewRecord& record) {
  return kRecordHeaderSize + record.stored.size() + (record.is_encrypted ? kAeadTagSize : 0);
}

size_t ClearSize(RecordType type) { return type == RecordType::kPatch ? kPatchHeadSize : 0; }

void EncodeRecord(const NewRecord& record, MutableBytes out, Sealer* sealer) {
  assert(record.plain_size > 0 && record.plain_size <= kBlockSize);
  assert(!record.stored.empty());
  assert(record.stored.size() <=
         (record.type == RecordType::kPatch ? kStoredSizeMax : record.plain_size));
  assert(out.size() == RecordSize(record) && record.is_encrypted == (sealer != nullptr));
  std::byte* at = out.data() + kShortDigestSize;
  *at++ = static_cast<std::byte>(record.type);
  *at++ = static_cast<std::byte>(record.codec);
  *at++ = static_cast<std::byte>(record.is_encrypted ? kFlagEncrypted : 0);
  *at++ = std::byte{0};
  StoreLe(at, record.plain_size);
  StoreLe(at + 4, static_cast<uint32_t>(out.size() - kRecordHeaderSize));
  StoreLe(at + 8, uint32_t{0});
  std::memcpy(at + 12, record.name.data(), kNameSize);
  const Seal seal = sealer == nullptr ? Seal{} : sealer->NextSeal();
  std::memcpy(at + 12 + kNameSize, seal.data(), kSealSize);
  std::byte* stored = out.data() + kRecordHeaderSize;
  if (stored != record.stored.data()) {
    std::memcpy(stored, record.stored.data(), record.stored.size());
  }
  if (sealer != nullptr) {
    const size_t sealed_at = kRecordHeaderSize + ClearSize(record.type);
    const MutableBytes sealed = out.subspan(sealed_at);
    sealer->SealBytes(seal, out.first(sealed_at).subspan(kShortDigestSize),
                      sealed.first(sealed.size() - kAeadTagSize), sealed);
  }
  const Digest digest = Blake3Hash(out.subspan(kShortDigestSize));
  std::memcpy(out.data(), digest.data(), kShortDigestSize);
}

}  // namespace blockferry
