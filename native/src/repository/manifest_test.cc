#include "repository/manifest.h"

#include <gtest/gtest.h>

#include <random>

#include "repository/manifest_format.h"

namespace blockferry {
namespace {

const RepositoryId kId = {std::byte{1}, std::byte{2}};
const Digest kKey = {std::byte{3}};

Manifest SomeManifest() {
  Manifest manifest;
  manifest.backup_id = "b-1";
  manifest.vm_pseudonym = "00112233445566778899aabbccddeeff";
  manifest.point_id = "p.1";
  manifest.base_backup_id = "b-0";
  manifest.sequence = 7;
  manifest.token = {3, 9};
  manifest.disks = {{"serial:a", Digest{std::byte{5}}, 1000}, {"virtio0", std::nullopt, 0}};
  manifest.body = ByteVector(100, std::byte{0x42});
  return manifest;
}

TEST(Manifest, ComesBackAsItWas) {
  Naming naming(kKey);
  Manifest manifest = SomeManifest();
  Result<Manifest> decoded =
      DecodeManifest(EncodeManifest(manifest, kId, naming, nullptr), kId, &naming, nullptr);
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_EQ(decoded->backup_id, "b-1");
  EXPECT_EQ(decoded->vm_pseudonym, manifest.vm_pseudonym);
  EXPECT_EQ(decoded->point_id, "p.1");
  EXPECT_EQ(decoded->base_backup_id, "b-0");
  EXPECT_EQ(decoded->sequence, 7u);
  EXPECT_EQ(decoded->token, (FencingToken{3, 9}));
  ASSERT_EQ(decoded->disks.size(), 2u);
  EXPECT_EQ(decoded->disks[0].disk_id, "serial:a");
  EXPECT_EQ(decoded->disks[0].root, manifest.disks[0].root);
  EXPECT_EQ(decoded->disks[0].size, 1000u);
  EXPECT_EQ(decoded->disks[1].root, std::nullopt);
  EXPECT_EQ(decoded->body, manifest.body);
}

TEST(Manifest, ShowsEveryFlippedBitAndEveryCut) {
  Naming naming(kKey);
  ByteVector bytes = EncodeManifest(SomeManifest(), kId, naming, nullptr);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_TRUE(DecodeManifest(bytes, kId, &naming, nullptr).status().Is(reason::kManifestCorrupt))
        << bit;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(DecodeManifest(Bytes(bytes).first(size), kId, &naming, nullptr).ok()) << size;
  }
  EXPECT_TRUE(DecodeManifest(bytes, kId, &naming, nullptr).ok());
}

TEST(Manifest, OfAnotherRepositoryIsRefused) {
  ByteVector bytes = EncodeManifest(SomeManifest(), kId, Naming(kKey), nullptr);
  const Naming right(kKey);
  const Naming wrong(Digest{});
  EXPECT_FALSE(DecodeManifest(bytes, RepositoryId{}, &right, nullptr).ok());
  EXPECT_FALSE(DecodeManifest(bytes, kId, &wrong, nullptr).ok());
  EXPECT_TRUE(DecodeManifest(bytes, kId, nullptr, nullptr).ok());
}

// The code is right, as from somebody who has the key: the fields are bounded all the same.
TEST(Manifest, SurvivesHostileFieldsUnderARightCode) {
  Naming naming(kKey);
  uint32_t seed = std::random_device()();
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  ByteVector good = EncodeManifest(SomeManifest(), kId, naming, nullptr);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    ByteVector bytes(good.begin(),
                     good.end() - manifest_format::kCodeSize - manifest_format::kDigestSize);
    for (unsigned i = 0; i <= random() % 4; ++i) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    Digest code = naming.ManifestCode(bytes);
    bytes.insert(bytes.end(), code.begin(), code.end());
    const Digest digest = Blake3Hash(bytes);
    bytes.insert(bytes.end(), digest.begin(), digest.end());
    Result<Manifest> decoded = DecodeManifest(bytes, kId, &naming, nullptr);
    if (!decoded.ok()) continue;
    ++accepted;
    EXPECT_TRUE(CheckManifest(*decoded).ok());
  }
  EXPECT_GT(accepted, 0);
}

TEST(Manifest, NamesTheFieldThatCannotBe) {
  auto field_of = [](auto change) {
    Manifest manifest = SomeManifest();
    change(manifest);
    Status status = CheckManifest(manifest);
    EXPECT_TRUE(status.Is(reason::kArgumentInvalid));
    return status.ok() ? std::string() : status.metadata()[0].second;
  };
  EXPECT_EQ(field_of([](Manifest& m) { m.backup_id = "../x"; }), "backup_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.backup_id = ""; }), "backup_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.backup_id = std::string(65, 'a'); }), "backup_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.base_backup_id = ".x"; }), "base_backup_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.point_id = "a b"; }), "point_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.vm_pseudonym = "XY"; }), "vm_pseudonym");
  EXPECT_EQ(field_of([](Manifest& m) { m.disks[0].disk_id = "a\nb"; }), "disk_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.disks[1].disk_id = "serial:a"; }), "disk_id");
  EXPECT_EQ(field_of([](Manifest& m) { m.disks[0].size = uint64_t{1} << 60; }), "size_bytes");
  EXPECT_EQ(field_of([](Manifest& m) { m.body.resize(16 * 1024 * 1024 + 1); }), "body");
}

}  // namespace
}  // namespace blockferry
