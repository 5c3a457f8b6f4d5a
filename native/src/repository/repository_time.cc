#include "repository/repository_time.h"

#include <algorithm>

#include "core/blake3.h"
#include "core/endian.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace repository_format;

// Magic, version u32, zero u32, time u64, boot id, seconds since that boot u64, and the BLAKE3 of
// all that.
constexpr char kMagic[] = "BFTIME\r\n";
constexpr size_t kMagicSize = 8;
constexpr uint32_t kTimeVersion = 1;
constexpr size_t kDigestedSize = kMagicSize + 4 + 4 + 8 + 16 + 8;
constexpr size_t kFileSize = kDigestedSize + 32;

struct StoredTime {
  uint64_t now = 0;
  std::array<std::byte, 16> boot_id{};
  uint64_t since_boot = 0;
};

ByteVector Encode(const StoredTime& time) {
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kTimeVersion);
  out.Put(uint32_t{0});
  out.Put(time.now);
  out.PutBytes(time.boot_id);
  out.Put(time.since_boot);
  out.PutBytes(Blake3Hash(bytes));
  return bytes;
}

Status Damaged(const std::string& path, std::string_view what) {
  return Status(
      reason::kRepositoryDamaged,
      "read " + path + ": " + std::string(what) +
          "; nothing expires until the clock is confirmed, see `blockferry repository clock`",
      {{"path", path}});
}

Result<StoredTime> Load(FileSystem& files, const std::string& path) {
  const Result<ByteVector> bytes = ReadWholeFile(files, path, kFileSize);
  if (bytes.status().Is(reason::kNotFound)) return Damaged(path, "the repository's time is gone");
  RETURN_IF_ERROR(bytes);
  ByteReader in(*bytes);
  StoredTime time;
  const bool is_ours =
      bytes->size() == kFileSize && TextOf(in.TakeBytes(kMagicSize)) == kMagic &&
      in.Take<uint32_t>() == kTimeVersion && in.Take<uint32_t>() == 0 &&
      Equal(Blake3Hash(Bytes(*bytes).first(kDigestedSize)), Bytes(*bytes).subspan(kDigestedSize));
  if (!is_ours) return Damaged(path, "it does not hold a time");
  time.now = in.Take<uint64_t>();
  in.TakeInto(time.boot_id);
  time.since_boot = in.Take<uint64_t>();
  return time;
}

uint64_t TimeAfter(const StoredTime& before, const ClockReading& reading) {
  const std::array<std::byte, 16> unknown{};
  const bool is_same_boot = before.boot_id == reading.boot_id && reading.boot_id != unknown;
  if (is_same_boot && reading.since_boot >= before.since_boot) {
    return before.now + (reading.since_boot - before.since_boot);
  }
  const bool is_believed = reading.wall > before.now && reading.wall - before.now <= kBelievedGap;
  return is_believed ? reading.wall : before.now;
}

Result<StoredTime> TimeNow(FileSystem& files, const std::string& folder, Clock& clock,
                           bool confirmed, ClockReading* reading) {
  const Result<StoredTime> before = Load(files, folder + "/" + kTimeFile);
  const bool is_lost = before.status().Is(reason::kRepositoryDamaged);
  if (!is_lost || !confirmed) RETURN_IF_ERROR(before);
  *reading = clock.Read();
  StoredTime after{reading->wall, reading->boot_id, reading->since_boot};
  if (!is_lost) {
    after.now = TimeAfter(*before, *reading);
    if (confirmed) after.now = std::max(after.now, reading->wall);
  }
  return after;
}

RepositoryTime TimeOf(const StoredTime& time, const ClockReading& reading) {
  return {time.now, reading.wall > time.now ? reading.wall - time.now : 0};
}

Status Store(FileSystem& files, const std::string& folder, const StoredTime& time) {
  std::byte random[8];
  FillRandom(random);
  const std::string path = folder + "/" + kTimeFile;
  const std::string fresh = path + "-new-" + HexOf(random);
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.CreateExclusive(fresh));
  Status stored = file->Append(Encode(time));
  if (stored.ok()) stored = file->Sync();
  if (stored.ok()) stored = files.Rename(fresh, path);
  if (stored.ok()) return files.SyncFolder(folder);
  static_cast<void>(files.Remove(fresh));
  return stored;
}

}  // namespace

Status WriteFirstTime(FileSystem& files, const std::string& folder, Clock& clock) {
  const ClockReading reading = clock.Read();
  return Store(files, folder, {reading.wall, reading.boot_id, reading.since_boot});
}

Status CheckTimeFile(FileSystem& files, const std::string& folder) {
  return ToStatus(Load(files, folder + "/" + kTimeFile));
}

Result<RepositoryTime> AdvanceTime(FileSystem& files, const std::string& folder, Clock& clock,
                                   bool confirmed) {
  ClockReading reading;
  ASSIGN_OR_RETURN(const StoredTime after, TimeNow(files, folder, clock, confirmed, &reading));
  RETURN_IF_ERROR(Store(files, folder, after));
  return TimeOf(after, reading);
}

Result<RepositoryTime> ReadTime(FileSystem& files, const std::string& folder, Clock& clock) {
  ClockReading reading;
  ASSIGN_OR_RETURN(const StoredTime now, TimeNow(files, folder, clock, false, &reading));
  return TimeOf(now, reading);
}

}  // namespace blockferry
