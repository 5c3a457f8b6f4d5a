// Encryption of records: AES-256-GCM, each writer under a key of its own that nobody has to keep,
// since it is derived from the repository's record key and a random id that lies in every record.
//
// Authenticated besides: the record's header from its type on, and what a patch has in clear. So a
// record can be copied elsewhere as it is, and not be taken for another one.
#ifndef BLOCKFERRY_REPOSITORY_RECORD_SEAL_H_
#define BLOCKFERRY_REPOSITORY_RECORD_SEAL_H_

#include <array>
#include <atomic>

#include "core/aead.h"

namespace blockferry {

// What of a record says how it was sealed: 10 bytes writer id, 6 bytes counter.
inline constexpr size_t kWriterIdSize = 10;
inline constexpr size_t kSealSize = 16;
using Seal = std::array<std::byte, kSealSize>;
using WriterId = std::array<std::byte, kWriterIdSize>;

// One writer: a session's disk, or a manifest. Thread-safe.
class WriterKey {
 public:
  // Draws a random id.
  explicit WriterKey(const Digest& record_key);

  const Digest& key() const { return key_; }
  // A new one with each call.
  Seal NextSeal();

 private:
  WriterId id_;
  Digest key_;
  std::atomic<uint64_t> count_ = 0;
};

// Seals with one writer's key; used by one thread.
class Sealer {
 public:
  // `writer` outlives it.
  explicit Sealer(WriterKey* writer) : writer_(writer), aead_(writer->key()) {}

  Seal NextSeal() { return writer_->NextSeal(); }
  // As Aead::Seal.
  void SealBytes(const Seal& seal, Bytes clear, Bytes plain, MutableBytes sealed);

 private:
  WriterKey* writer_;
  Aead aead_;
};

// As Aead::Open, with the key of the writer that the seal names. Any thread.
bool OpenSealed(const Digest& record_key, const Seal& seal, Bytes clear, Bytes sealed,
                MutableBytes plain);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_RECORD_SEAL_H_
