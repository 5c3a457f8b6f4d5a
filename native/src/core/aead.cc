#include "core/aead.h"

#include <openssl/evp.h>
#include <openssl/kdf.h>

#include <cassert>
#include <cstdlib>

namespace blockferry {
namespace {

constexpr uint64_t kScryptMemoryMax = uint64_t{256} << 20;

const unsigned char* In(Bytes bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* Out(MutableBytes bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }
int SizeOf(Bytes bytes) { return static_cast<int>(bytes.size()); }

// What OpenSSL answers to a call that only a lack of memory can fail.
void Check(int result) {
  if (result != 1) std::abort();
}

}  // namespace

Aead::Aead(const Digest& key) : seal_(EVP_CIPHER_CTX_new()), open_(EVP_CIPHER_CTX_new()) {
  Check(seal_ != nullptr && open_ != nullptr ? 1 : 0);
  Check(EVP_EncryptInit_ex(seal_, EVP_aes_256_gcm(), nullptr, In(key), nullptr));
  Check(EVP_DecryptInit_ex(open_, EVP_aes_256_gcm(), nullptr, In(key), nullptr));
}

Aead::~Aead() {
  EVP_CIPHER_CTX_free(seal_);
  EVP_CIPHER_CTX_free(open_);
}

void Aead::Seal(const AeadNonce& nonce, Bytes clear, Bytes plain, MutableBytes sealed) {
  assert(sealed.size() == plain.size() + kAeadTagSize);
  int size = 0;
  Check(EVP_EncryptInit_ex(seal_, nullptr, nullptr, nullptr, In(nonce)));
  Check(EVP_EncryptUpdate(seal_, nullptr, &size, In(clear), SizeOf(clear)));
  Check(EVP_EncryptUpdate(seal_, Out(sealed), &size, In(plain), SizeOf(plain)));
  Check(EVP_EncryptFinal_ex(seal_, Out(sealed) + size, &size));
  Check(EVP_CIPHER_CTX_ctrl(seal_, EVP_CTRL_AEAD_GET_TAG, kAeadTagSize,
                            Out(sealed.last(kAeadTagSize))));
}

bool Aead::Open(const AeadNonce& nonce, Bytes clear, Bytes sealed, MutableBytes plain) {
  assert(sealed.size() == plain.size() + kAeadTagSize);
  int size = 0;
  std::array<std::byte, kAeadTagSize> tag;
  const Bytes given = sealed.last(kAeadTagSize);
  std::copy(given.begin(), given.end(), tag.begin());
  Check(EVP_DecryptInit_ex(open_, nullptr, nullptr, nullptr, In(nonce)));
  Check(EVP_DecryptUpdate(open_, nullptr, &size, In(clear), SizeOf(clear)));
  Check(EVP_DecryptUpdate(open_, Out(plain), &size, In(sealed), SizeOf(plain)));
  Check(EVP_CIPHER_CTX_ctrl(open_, EVP_CTRL_AEAD_SET_TAG, kAeadTagSize, Out(tag)));
  return EVP_DecryptFinal_ex(open_, Out(plain) + size, &size) == 1;
}

bool Scrypt(Bytes passphrase, Bytes salt, const ScryptCost& cost, Digest* key) {
  if (cost.log2_n < 1 || cost.log2_n > 24 || cost.r < 1 || cost.r > 32 || cost.p < 1 ||
      cost.p > 32 || (uint64_t{128} * cost.r << cost.log2_n) > kScryptMemoryMax) {
    return false;
  }
  return EVP_PBE_scrypt(reinterpret_cast<const char*>(passphrase.data()), passphrase.size(),
                        In(salt), salt.size(), uint64_t{1} << cost.log2_n, cost.r, cost.p,
                        2 * kScryptMemoryMax, Out(*key), key->size()) == 1;
}

}  // namespace blockferry
