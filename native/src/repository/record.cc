#include "repository/record.h"

#include <cassert>
#include <cstring>

#include "core/endian.h"
#include "repository/pack_format.h"

namespace blockferry {

using namespace pack_format;

void EncodeRecord(const NewRecord& record, MutableBytes out) {
  assert(record.plain_size > 0 && record.plain_size <= kBlockSize);
  assert(!record.stored.empty());
  assert(record.stored.size() <=
         (record.type == RecordType::kPatch ? kStoredSizeMax : record.plain_size));
  assert(out.size() == kRecordHeaderSize + record.stored.size());
  std::byte* at = out.data() + kShortDigestSize;
  *at++ = static_cast<std::byte>(record.type);
  *at++ = static_cast<std::byte>(record.codec);
  StoreLe(at, uint16_t{0});
  StoreLe(at + 2, record.plain_size);
  StoreLe(at + 6, static_cast<uint32_t>(record.stored.size()));
  StoreLe(at + 10, uint32_t{0});
  std::memcpy(at + 14, record.name.data(), kNameSize);
  std::memset(at + 14 + kNameSize, 0, kRecordReservedSize);
  std::byte* stored = out.data() + kRecordHeaderSize;
  if (stored != record.stored.data()) {
    std::memcpy(stored, record.stored.data(), record.stored.size());
  }
  const Digest digest = Blake3Hash(out.subspan(kShortDigestSize));
  std::memcpy(out.data(), digest.data(), kShortDigestSize);
}

}  // namespace blockferry
