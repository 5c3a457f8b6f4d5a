#include "core/aead.h"

#include <gtest/gtest.h>

#include <string>

namespace blockferry {
namespace {

ByteVector FromHex(std::string_view hex) {
  ByteVector bytes(hex.size() / 2);
  EXPECT_TRUE(ParseHex(hex, bytes));
  return bytes;
}

// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B.
constexpr char kKey[] = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
constexpr char kNonce[] = "cafebabefacedbaddecaf888";
constexpr char kPlain[] =
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b5"
    "25b16aedf5aa0de657ba637b39";
constexpr char kClear[] = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
constexpr char kSealed[] =
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10568288"
    "38"
    "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";

class AeadTest : public ::testing::Test {
 protected:
  AeadTest() {
    EXPECT_TRUE(ParseHex(kKey, key_));
    EXPECT_TRUE(ParseHex(kNonce, nonce_));
  }
  Digest key_;
  AeadNonce nonce_;
  const ByteVector plain_ = FromHex(kPlain);
  const ByteVector clear_ = FromHex(kClear);
  const ByteVector sealed_ = FromHex(kSealed);
};

TEST_F(AeadTest, SealsAsTheSpecificationDoesAndInPlace) {
  Aead aead(key_);
  for (const bool in_place : {false, true, false}) {
    ByteVector sealed(plain_.size() + kAeadTagSize);
    std::copy(plain_.begin(), plain_.end(), sealed.begin());
    aead.Seal(nonce_, clear_, in_place ? Bytes(sealed).first(plain_.size()) : Bytes(plain_),
              sealed);
    EXPECT_EQ(HexOf(sealed), kSealed);
  }
}

TEST_F(AeadTest, OpensNothingThatWasChanged) {
  Aead aead(key_);
  ByteVector plain(plain_.size());
  ASSERT_TRUE(aead.Open(nonce_, clear_, sealed_, plain));
  EXPECT_EQ(plain, plain_);
  for (size_t bit = 0; bit < sealed_.size() * 8; ++bit) {
    ByteVector changed = sealed_;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(aead.Open(nonce_, clear_, changed, plain)) << bit;
  }
  EXPECT_FALSE(aead.Open(nonce_, Bytes(clear_).first(1), sealed_, plain));
  EXPECT_FALSE(aead.Open(AeadNonce{}, clear_, sealed_, plain));
  EXPECT_FALSE(Aead(Digest{}).Open(nonce_, clear_, sealed_, plain));
  EXPECT_TRUE(aead.Open(nonce_, clear_, sealed_, plain));
}

// RFC 7914, section 12.
TEST(ScryptTest, GivesTheKeysOfItsSpecification) {
  Digest key;
  ASSERT_TRUE(Scrypt(BytesOf("password"), BytesOf("NaCl"), {10, 8, 16}, &key));
  EXPECT_EQ(HexOf(key), "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
  ASSERT_TRUE(Scrypt(BytesOf("pleaseletmein"), BytesOf("SodiumChloride"), {14, 8, 1}, &key));
  EXPECT_EQ(HexOf(key), "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

TEST(ScryptTest, RefusesACostThatNobodyCanPay) {
  Digest key;
  for (const ScryptCost cost :
       {ScryptCost{0, 8, 1}, ScryptCost{25, 8, 1}, ScryptCost{20, 32, 1}, ScryptCost{10, 0, 1},
        ScryptCost{10, 8, 33}, ScryptCost{10, 8, 0}}) {
    EXPECT_FALSE(Scrypt(BytesOf("p"), BytesOf("s"), cost, &key));
  }
}

}  // namespace
}  // namespace blockferry
