#include "core/clock.h"

#include <time.h>

#include <algorithm>

#include "core/file.h"

namespace blockferry {
namespace {

uint64_t SecondsOf(clockid_t id) {
  timespec time{};
  clock_gettime(id, &time);
  return time.tv_sec > 0 ? static_cast<uint64_t>(time.tv_sec) : 0;
}

// Zeroes when the system does not tell; no reading then takes up where another one ended.
std::array<std::byte, 16> ReadBootId() {
  std::array<std::byte, 16> id{};
  Result<std::unique_ptr<File>> file = SystemFiles().OpenForRead("/proc/sys/kernel/random/boot_id");
  if (!file.ok()) return id;
  ByteVector bytes(36);
  const Result<size_t> size = (*file)->ReadAt(0, bytes);
  if (!size.ok() || *size != bytes.size()) return id;
  std::erase(bytes, std::byte{'-'});
  if (!ParseHex(TextOf(bytes), id)) id.fill(std::byte{0});
  return id;
}

class MachineClock final : public Clock {
 public:
  ClockReading Read() override {
    return {SecondsOf(CLOCK_REALTIME), boot_id_, SecondsOf(CLOCK_BOOTTIME)};
  }

 private:
  const std::array<std::byte, 16> boot_id_ = ReadBootId();
};

}  // namespace

Clock& SystemClock() {
  static MachineClock clock;
  return clock;
}

}  // namespace blockferry
