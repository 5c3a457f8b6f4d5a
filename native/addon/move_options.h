// The options of Session.moveDisk as plain data.
#ifndef BLOCKFERRY_ADDON_MOVE_OPTIONS_H_
#define BLOCKFERRY_ADDON_MOVE_OPTIONS_H_

#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compress/codec.h"
#include "core/status.h"
#include "stream/restore_disk.h"
#include "values.h"

namespace blockferry {

struct MoveOptions {
  enum class SourceKind { kRaw, kNbd };
  enum class ChangedKind { kAll, kBitmap, kExtents };

  std::string disk_id;
  uint64_t size_bytes = 0;
  SourceKind source = SourceKind::kRaw;
  std::string address;
  ChangedKind changed = ChangedKind::kAll;
  std::string bitmap;
  std::vector<uint64_t> extents;
  std::optional<StoredDisk> base;
  std::optional<StoredDisk> earlier;
  Compression compression;
  int64_t stall_timeout_ms = 0;
};

Result<MoveOptions> ReadMoveOptions(const Napi::Value& value);

// { root, size_bytes }
Result<StoredDisk> ReadStoredDisk(const Fields& fields);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_MOVE_OPTIONS_H_
