#include "repository/record_seal.h"

#include <algorithm>
#include <cassert>
#include <optional>

#include "core/endian.h"

namespace blockferry {
namespace {

constexpr size_t kCounterSize = kSealSize - kWriterIdSize;
static_assert(kCounterSize == 6 && kCounterSize <= kAeadNonceSize);

Digest WriterKeyOf(const Digest& record_key, Bytes writer_id) {
  return Blake3KeyedHash(record_key, writer_id);
}

// The counter and zeroes: unique for the writer's key.
AeadNonce NonceOf(const Seal& seal) {
  AeadNonce nonce{};
  std::copy(seal.begin() + kWriterIdSize, seal.end(), nonce.begin());
  return nonce;
}

}  // namespace

WriterKey::WriterKey(const Digest& record_key) {
  FillRandom(id_);
  key_ = WriterKeyOf(record_key, id_);
}

Seal WriterKey::NextSeal() {
  const uint64_t count = count_.fetch_add(1);
  // 2^48 records of a block each are more than the largest disk has.
  assert(count >> 48 == 0);
  Seal seal;
  std::copy(id_.begin(), id_.end(), seal.begin());
  std::byte raw[8];
  StoreLe(raw, count);
  std::copy_n(raw, kCounterSize, seal.begin() + kWriterIdSize);
  return seal;
}

void Sealer::SealBytes(const Seal& seal, Bytes clear, Bytes plain, MutableBytes sealed) {
  aead_.Seal(NonceOf(seal), clear, plain, sealed);
}

bool OpenSealed(const Digest& record_key, const Seal& seal, Bytes clear, Bytes sealed,
                MutableBytes plain) {
  // Neighbours in a pack have one writer: a thread keeps the last one's key schedule.
  struct Last {
    Digest key;
    Aead aead;
    explicit Last(const Digest& key) : key(key), aead(key) {}
  };
  thread_local std::optional<Last> last;
  const Digest key = WriterKeyOf(record_key, Bytes(seal).first(kWriterIdSize));
  if (!last || last->key != key) last.emplace(key);
  return last->aead.Open(NonceOf(seal), clear, sealed, plain);
}

}  // namespace blockferry
