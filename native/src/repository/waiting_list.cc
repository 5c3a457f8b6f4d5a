#include "repository/waiting_list.h"

#include "core/blake3.h"
#include "core/endian.h"

namespace blockferry {
namespace {

constexpr char kMagic[] = "BFWAIT\r\n";
constexpr size_t kMagicSize = 8;
constexpr uint32_t kListVersion = 1;
constexpr size_t kDigestSize = 32;
constexpr size_t kSessionSizeMax = 128;
constexpr uint64_t kFileSizeMax = 64 * 1024 * 1024;

}  // namespace

ByteVector EncodeWaitingList(std::span<const std::string> sessions) {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kListVersion);
  out.Put(static_cast<uint32_t>(sessions.size()));
  for (const std::string& session : sessions) out.PutText(session);
  out.PutBytes(Blake3Hash(bytes));
  return bytes;
}

std::optional<std::vector<std::string>> ReadWaitingList(FileSystem& files,
                                                        const std::string& path) {
  const Result<ByteVector> bytes = ReadWholeFile(files, path, kFileSizeMax);
  if (!bytes.ok() || bytes->size() < kDigestSize) return std::nullopt;
  const Bytes digested = Bytes(*bytes).first(bytes->size() - kDigestSize);
  if (!Equal(Blake3Hash(digested), Bytes(*bytes).last(kDigestSize))) return std::nullopt;
  ByteReader in(digested);
  if (TextOf(in.TakeBytes(kMagicSize)) != kMagic || in.Take<uint32_t>() != kListVersion) {
    return std::nullopt;
  }
  const uint32_t count = in.Take<uint32_t>();
  std::vector<std::string> sessions;
  for (uint32_t i = 0; i < count && in.ok(); ++i) sessions.push_back(in.TakeText(kSessionSizeMax));
  if (!in.ok() || in.remaining() != 0) return std::nullopt;
  return sessions;
}

}  // namespace blockferry
