#include "repository/repository_identity.h"

#include <cassert>

#include "core/endian.h"
#include "repository/block_geometry.h"
#include "repository/repository_format.h"

namespace blockferry {

using namespace repository_format;

ByteVector EncodeIdentity(const RepositoryIdentity& identity) {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kVersion);
  out.Put(kBlockSize);
  out.PutBytes(identity.id);
  out.PutBytes(identity.naming_key);
  out.Put(identity.is_encrypted ? kFlagEncrypted : uint32_t{0});
  out.PutZeroes(kReservedSize);
  assert(bytes.size() == kDigestedSize);
  out.PutBytes(Blake3Hash(bytes));
  return bytes;
}

Result<RepositoryIdentity> DecodeIdentity(Bytes bytes, const std::string& path) {
  ByteReader in(bytes);
  if (TextOf(in.TakeBytes(kMagicSize)) != kMagic) {
    return Status(reason::kRepositoryDamaged,
                  "open repository " + path +
                      ": the file does not start as that of a repository; "
                      "restore it from a copy",
                  {{"path", path}});
  }
  // Only the magic and the version have their place in every version.
  uint32_t version = in.Take<uint32_t>();
  if (in.ok() && version > kVersion) {
    return Status(reason::kRepositoryTooNew,
                  "open repository " + path + ": its format version is " + std::to_string(version) +
                      ", this program knows version " + std::to_string(kVersion) +
                      "; upgrade Blockferry",
                  {{"path", path}, {"version", std::to_string(version)}});
  }
  uint32_t block_size = in.Take<uint32_t>();
  RepositoryIdentity identity;
  in.TakeInto(identity.id);
  in.TakeInto(identity.naming_key);
  const uint32_t flags = in.Take<uint32_t>();
  if (bytes.size() != kFileSize || !in.ok() || version != kVersion || block_size != kBlockSize ||
      !Equal(Blake3Hash(bytes.first(kDigestedSize)), bytes.last(32))) {
    return Status(reason::kRepositoryDamaged,
                  "open repository " + path +
                      ": the file has a wrong checksum; restore it from a "
                      "copy",
                  {{"path", path}});
  }
  if (flags > kFlagEncrypted) {
    return Status(reason::kRepositoryTooNew,
                  "open repository " + path + ": it has flags " + std::to_string(flags) +
                      " that this program does not know; upgrade Blockferry",
                  {{"path", path}, {"flags", std::to_string(flags)}});
  }
  identity.is_encrypted = flags != 0;
  return identity;
}

}  // namespace blockferry
