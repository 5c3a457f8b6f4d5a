#include "repository/manifest.h"

#include <algorithm>
#include <cassert>

#include "core/endian.h"
#include "repository/block_geometry.h"
#include "repository/manifest_format.h"
#include "repository/record_seal.h"

namespace blockferry {
namespace {

using namespace manifest_format;

Status Invalid(const std::string& field, const std::string& value, const std::string& rule) {
  return Status(reason::kArgumentInvalid,
                "write a manifest: " + field + " is \"" + value + "\", it must be " + rule,
                {{"field", field}, {"value", value}});
}

Status Corrupt(const std::string& what) {
  return Status(reason::kManifestCorrupt,
                "read a manifest: " + what +
                    "; this backup cannot be trusted, use another one or another copy",
                {{"what", what}});
}

// The disk ids and the body, sealed; see manifest_format.h.
ByteVector SealSecrets(const Manifest& manifest, const Digest& record_key, Bytes clear) {
  ByteVector plain;
  ByteWriter out(&plain);
  for (const ManifestDisk& disk : manifest.disks) out.PutText(disk.disk_id);
  out.PutBytes(manifest.body);
  WriterKey writer(record_key);
  Sealer sealer(&writer);
  const Seal seal = sealer.NextSeal();
  ByteVector sealed(seal.begin(), seal.end());
  sealed.resize(kSealSize + plain.size() + kAeadTagSize);
  sealer.SealBytes(seal, clear, plain, MutableBytes(sealed).subspan(kSealSize));
  return sealed;
}

bool OpenSecrets(Bytes sealed, const Digest& record_key, Bytes clear, Manifest* manifest) {
  if (sealed.size() < kSealSize + kAeadTagSize) return false;
  Seal seal;
  std::copy_n(sealed.begin(), kSealSize, seal.begin());
  ByteVector plain(sealed.size() - kSealSize - kAeadTagSize);
  if (!OpenSealed(record_key, seal, clear, sealed.subspan(kSealSize), plain)) return false;
  ByteReader in(plain);
  for (ManifestDisk& disk : manifest->disks) disk.disk_id = in.TakeText(kDiskIdSizeMax);
  const Bytes body = in.TakeBytes(in.remaining());
  manifest->body.assign(body.begin(), body.end());
  return in.ok();
}

ManifestDisk TakeDisk(ByteReader* in) {
  ManifestDisk disk;
  disk.disk_id = in->TakeText(kDiskIdSizeMax);
  disk.size = in->Take<uint64_t>();
  uint8_t has_root = in->Take<uint8_t>();
  Digest root;
  if (in->TakeInto(root) && has_root != 0) disk.root = root;
  return disk;
}

}  // namespace

bool IsFileId(std::string_view id) {
  if (id.empty() || id.size() > kFileIdSizeMax || id.front() == '.') return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

bool IsDiskId(std::string_view id) {
  return !id.empty() && id.size() <= kDiskIdSizeMax &&
         std::none_of(id.begin(), id.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool IsPseudonym(std::string_view pseudonym) {
  std::byte raw[kPseudonymSize];
  return ParseHex(pseudonym, raw);
}

Status CheckManifest(const Manifest& manifest) {
  constexpr char kFileIdRule[] =
      "1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen, not starting with a dot";
  if (!IsFileId(manifest.backup_id)) return Invalid("backup_id", manifest.backup_id, kFileIdRule);
  if (!manifest.base_backup_id.empty() && !IsFileId(manifest.base_backup_id)) {
    return Invalid("base_backup_id", manifest.base_backup_id, kFileIdRule);
  }
  if (!IsFileId(manifest.point_id)) return Invalid("point_id", manifest.point_id, kFileIdRule);
  if (!IsPseudonym(manifest.vm_pseudonym)) {
    return Invalid("vm_pseudonym", manifest.vm_pseudonym, "32 lower-case hex digits");
  }
  if (manifest.disks.size() > kDiskCountMax) {
    return Invalid("disks", std::to_string(manifest.disks.size()), "at most 4096");
  }
  if (manifest.body.size() > kBodySizeMax) {
    return Invalid("body", std::to_string(manifest.body.size()) + " bytes", "at most 16 MiB");
  }
  std::vector<std::string_view> ids;
  for (const ManifestDisk& disk : manifest.disks) {
    if (!IsDiskId(disk.disk_id)) {
      return Invalid("disk_id", disk.disk_id, "1 to 255 bytes without control characters");
    }
    if (disk.size > kDiskSizeMax) {
      return Invalid("size_bytes", std::to_string(disk.size), "at most 2^53");
    }
    ids.push_back(disk.disk_id);
  }
  std::sort(ids.begin(), ids.end());
  auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) return Invalid("disk_id", std::string(*twice), "given once");
  return {};
}

ByteVector EncodeManifest(const Manifest& manifest, const RepositoryId& repository,
                          const Naming& naming, const Digest* record_key) {
  assert(CheckManifest(manifest).ok());
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kVersion);
  out.Put(record_key != nullptr ? kFlagEncrypted : uint32_t{0});
  out.PutBytes(repository);
  std::byte pseudonym[kPseudonymSize];
  bool is_hex = ParseHex(manifest.vm_pseudonym, pseudonym);
  assert(is_hex);
  static_cast<void>(is_hex);
  out.PutBytes(pseudonym);
  out.Put(manifest.sequence);
  out.Put(manifest.token.incarnation);
  out.Put(manifest.token.number);
  out.Put(manifest.lock_until);
  assert(bytes.size() == kFixedSize);
  out.PutText(manifest.backup_id);
  out.PutText(manifest.base_backup_id);
  out.PutText(manifest.point_id);
  out.Put(static_cast<uint32_t>(manifest.disks.size()));
  for (const ManifestDisk& disk : manifest.disks) {
    out.PutText(record_key != nullptr ? "" : disk.disk_id);
    out.Put(disk.size);
    out.Put(static_cast<uint8_t>(disk.root ? 1 : 0));
    out.PutBytes(disk.root.value_or(Digest{}));
  }
  const ByteVector body =
      record_key != nullptr ? SealSecrets(manifest, *record_key, bytes) : manifest.body;
  out.Put(static_cast<uint32_t>(body.size()));
  out.PutBytes(body);
  out.Put(uint32_t{0});
  out.PutBytes(naming.ManifestCode(bytes));
  out.PutBytes(Blake3Hash(bytes));
  return bytes;
}

Status CheckManifestDigest(Bytes bytes) {
  if (bytes.size() < kFixedSize + kCodeSize + kDigestSize) return Corrupt("it is cut off");
  if (TextOf(bytes.first(kMagicSize)) != kMagic) return Corrupt("it does not start as one");
  const Bytes digested = bytes.first(bytes.size() - kDigestSize);
  if (Equal(Blake3Hash(digested), bytes.last(kDigestSize))) return {};
  return Corrupt("its bytes have a wrong digest");
}

Result<Manifest> DecodeManifest(Bytes bytes, const RepositoryId& repository, const Naming* naming,
                                const Digest* record_key) {
  RETURN_IF_ERROR(CheckManifestDigest(bytes));
  bytes = bytes.first(bytes.size() - kDigestSize);
  const Bytes authenticated = bytes.first(bytes.size() - kCodeSize);
  // The code comes first: with a key nothing below sees bytes that this repository did not write.
  if (naming != nullptr && !Equal(naming->ManifestCode(authenticated), bytes.last(kCodeSize))) {
    return Corrupt("its authentication code is wrong");
  }
  ByteReader in(authenticated.subspan(kMagicSize));
  uint32_t version = in.Take<uint32_t>();
  uint32_t flags = in.Take<uint32_t>();
  if (version > kVersion || flags > kFlagEncrypted) {
    return Status(reason::kRepositoryTooNew,
                  "read a manifest: its version is " + std::to_string(version) +
                      ", this program reads version " + std::to_string(kVersion) +
                      "; upgrade Blockferry",
                  {{"version", std::to_string(version)}});
  }
  if (!Equal(in.TakeBytes(16), repository)) return Corrupt("it belongs to another repository");
  Manifest manifest;
  manifest.vm_pseudonym = HexOf(in.TakeBytes(kPseudonymSize));
  manifest.sequence = in.Take<uint64_t>();
  manifest.token.incarnation = in.Take<uint64_t>();
  manifest.token.number = in.Take<uint64_t>();
  manifest.lock_until = in.Take<uint64_t>();
  manifest.backup_id = in.TakeText(kFileIdSizeMax);
  manifest.base_backup_id = in.TakeText(kFileIdSizeMax);
  manifest.point_id = in.TakeText(kFileIdSizeMax);
  uint32_t disk_count = in.Take<uint32_t>();
  if (disk_count > kDiskCountMax) return Corrupt("it names too many disks");
  for (uint32_t i = 0; i < disk_count && in.ok(); ++i) manifest.disks.push_back(TakeDisk(&in));
  const size_t clear_size = authenticated.size() - in.remaining();
  uint32_t body_size = in.Take<uint32_t>();
  if (body_size > kSealedSizeMax) return Corrupt("its body is too long");
  Bytes body = in.TakeBytes(body_size);
  if (flags == kFlagEncrypted && naming == nullptr) {
    for (size_t i = 0; i < manifest.disks.size(); ++i) {
      manifest.disks[i].disk_id = std::to_string(i);
    }
  } else if (flags == kFlagEncrypted) {
    if (record_key == nullptr ||
        !OpenSecrets(body, *record_key, authenticated.first(clear_size), &manifest)) {
      return Corrupt("it cannot be decrypted");
    }
  } else {
    manifest.body.assign(body.begin(), body.end());
  }
  uint32_t signature_size = in.Take<uint32_t>();
  if (!in.ok() || signature_size != 0 || in.remaining() != 0) {
    return Corrupt("its parts do not add up");
  }
  if (Status check = CheckManifest(manifest); !check.ok()) return Corrupt(check.message());
  return manifest;
}

}  // namespace blockferry
