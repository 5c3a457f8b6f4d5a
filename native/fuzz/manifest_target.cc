#include <cassert>
#include <cstring>

#include "fuzz_target.h"
#include "repository/manifest.h"
#include "repository/manifest_format.h"

namespace blockferry::fuzz {
namespace {

using namespace manifest_format;

constexpr RepositoryId kRepository{std::byte{1}};

const Naming& TestNaming() {
  static const Naming naming(Digest{std::byte{3}});
  return naming;
}

constexpr Digest kRecordKey{std::byte{4}};

// Bits of the first byte: the authentication code is made right; the repository is encrypted. The
// digest that follows is always made right.
void Run(Bytes input) {
  if (input.empty()) return;
  ByteVector bytes(input.begin() + 1, input.end());
  if ((std::to_integer<unsigned>(input[0]) & 1) != 0 && bytes.size() >= kCodeSize) {
    const size_t authenticated = bytes.size() - kCodeSize;
    const Digest code = TestNaming().ManifestCode(Bytes(bytes).first(authenticated));
    std::memcpy(bytes.data() + authenticated, code.data(), kCodeSize);
  }
  const Digest digest = Blake3Hash(bytes);
  bytes.insert(bytes.end(), digest.begin(), digest.end());
  const Digest* key = (std::to_integer<unsigned>(input[0]) & 2) != 0 ? &kRecordKey : nullptr;
  const Naming naming = TestNaming();
  // As a collection without a key reads it.
  static_cast<void>(DecodeManifest(bytes, kRepository, nullptr, nullptr).ok());
  const Result<Manifest> manifest = DecodeManifest(bytes, kRepository, &naming, key);
  if (!manifest.ok()) return;
  assert(CheckManifest(*manifest).ok());
  // What was accepted can be written and read again.
  const ByteVector again = EncodeManifest(*manifest, kRepository, TestNaming(), key);
  assert(DecodeManifest(again, kRepository, &naming, key).ok());
}

std::vector<ByteVector> Seeds() {
  std::vector<ByteVector> seeds;
  for (const size_t disk_count : {0, 1, 3}) {
    Manifest manifest;
    manifest.backup_id = "20260101-000000-abcdef";
    manifest.vm_pseudonym = std::string(32, 'a');
    manifest.point_id = "abcdef012345";
    manifest.base_backup_id = disk_count == 3 ? "base" : "";
    manifest.sequence = 1;
    manifest.token = {1, 2};
    for (size_t i = 0; i < disk_count; ++i) {
      ManifestDisk disk{"disk" + std::to_string(i), std::nullopt, 65536};
      if (i > 0) disk.root = Digest{std::byte{5}};
      manifest.disks.push_back(std::move(disk));
    }
    manifest.body = ByteVector(disk_count * 8, std::byte{7});
    assert(CheckManifest(manifest).ok());
    for (const Digest* key : {static_cast<const Digest*>(nullptr), &kRecordKey}) {
      ByteVector bytes = EncodeManifest(manifest, kRepository, TestNaming(), key);
      bytes.erase(bytes.end() - kDigestSize, bytes.end());
      seeds.push_back(InputOf(key == nullptr ? 1 : 3, bytes));
    }
  }
  return seeds;
}

}  // namespace

const Target kManifest{"manifest", Run, Seeds};

}  // namespace blockferry::fuzz
