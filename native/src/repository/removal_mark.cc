#include "repository/removal_mark.h"

#include "core/blake3.h"
#include "core/endian.h"

namespace blockferry {
namespace {

constexpr char kMagic[] = "BFMARK\r\n";
constexpr size_t kMagicSize = 8;
constexpr uint32_t kMarkVersion = 1;
constexpr size_t kDigestedSize = kMagicSize + 4 + 4 + 8;
constexpr size_t kFileSize = kDigestedSize + 32;

}  // namespace

ByteVector EncodeMark(uint64_t time) {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kMarkVersion);
  out.Put(uint32_t{0});
  out.Put(time);
  out.PutBytes(Blake3Hash(bytes));
  return bytes;
}

Result<uint64_t> ReadMarkTime(FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(const ByteVector bytes, ReadWholeFile(files, path, kFileSize));
  ByteReader in(bytes);
  const bool is_ours =
      bytes.size() == kFileSize && TextOf(in.TakeBytes(kMagicSize)) == kMagic &&
      in.Take<uint32_t>() == kMarkVersion && in.Take<uint32_t>() == 0 &&
      Equal(Blake3Hash(Bytes(bytes).first(kDigestedSize)), Bytes(bytes).subspan(kDigestedSize));
  if (is_ours) return in.Take<uint64_t>();
  return Status(reason::kRepositoryDamaged,
                "read " + path +
                    ": it does not hold the time of a removal; the backup stays until it is "
                    "undeleted and removed again",
                {{"path", path}});
}

}  // namespace blockferry
