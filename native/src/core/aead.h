// AES-256-GCM (NIST SP 800-38D) and scrypt (RFC 7914), by OpenSSL.
#ifndef BLOCKFERRY_CORE_AEAD_H_
#define BLOCKFERRY_CORE_AEAD_H_

#include <array>
#include <cstdint>

#include "core/blake3.h"

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;

namespace blockferry {

inline constexpr size_t kAeadNonceSize = 12;
inline constexpr size_t kAeadTagSize = 16;
using AeadNonce = std::array<std::byte, kAeadNonceSize>;

// One key; used by one thread. A nonce must never be sealed with twice.
class Aead {
 public:
  explicit Aead(const Digest& key);
  ~Aead();
  Aead(const Aead&) = delete;
  Aead& operator=(const Aead&) = delete;

  // Encrypts and authenticates `plain`, and authenticates `clear`. `sealed` may begin where `plain`
  // does. REQUIRES: sealed.size() == plain.size() + kAeadTagSize.
  void Seal(const AeadNonce& nonce, Bytes clear, Bytes plain, MutableBytes sealed);

  // False, and nothing of use in `plain`, unless exactly this was sealed with this key and nonce.
  // REQUIRES: sealed.size() == plain.size() + kAeadTagSize.
  bool Open(const AeadNonce& nonce, Bytes clear, Bytes sealed, MutableBytes plain);

 private:
  EVP_CIPHER_CTX* seal_;
  EVP_CIPHER_CTX* open_;
};

struct ScryptCost {
  uint32_t log2_n = 0;
  uint32_t r = 0;
  uint32_t p = 0;
};

// False when the cost asks for more than 256 MiB of memory, or is none.
bool Scrypt(Bytes passphrase, Bytes salt, const ScryptCost& cost, Digest* key);

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_AEAD_H_
