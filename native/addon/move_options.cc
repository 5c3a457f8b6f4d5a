#include "move_options.h"

#include "repository/block_geometry.h"
#include "repository/manifest.h"

namespace blockferry {
namespace {

constexpr uint64_t kStallTimeoutMsMax = 24 * 60 * 60 * 1000;
// A list that long is 64 MiB; whoever has more marks whole runs.
constexpr uint32_t kExtentValuesMax = 8'000'000;

Status ReadSource(const Fields& fields, MoveOptions* options) {
  ASSIGN_OR_RETURN(const std::string kind, fields.Text("kind"));
  if (kind == "raw") {
    options->source = MoveOptions::SourceKind::kRaw;
    ASSIGN_OR_RETURN(options->address, fields.Text("path"));
  } else if (kind == "nbd") {
    options->source = MoveOptions::SourceKind::kNbd;
    ASSIGN_OR_RETURN(options->address, fields.Text("uri"));
  } else {
    return Unfit(fields.NameOf("kind"), "it is neither raw nor nbd");
  }
  return Status();
}

Status ReadChanged(const Fields& fields, MoveOptions* options) {
  ASSIGN_OR_RETURN(const std::string kind, fields.Text("kind"));
  if (kind == "all") {
    options->changed = MoveOptions::ChangedKind::kAll;
  } else if (kind == "bitmap") {
    options->changed = MoveOptions::ChangedKind::kBitmap;
    ASSIGN_OR_RETURN(options->bitmap, fields.Text("context"));
    if (options->bitmap.empty()) return Unfit(fields.NameOf("context"), "it is empty");
  } else if (kind == "extents") {
    options->changed = MoveOptions::ChangedKind::kExtents;
    ASSIGN_OR_RETURN(options->extents, fields.Integers("extents", kExtentValuesMax));
  } else {
    return Unfit(fields.NameOf("kind"), "it is none of all, bitmap, extents");
  }
  return Status();
}

Status ReadCompression(const Fields& fields, Compression* compression) {
  ASSIGN_OR_RETURN(const std::string codec, fields.Text("codec"));
  ASSIGN_OR_RETURN(const uint64_t level, fields.Integer("level"));
  if (codec == "zstd") {
    if (level < kZstdLevelMin || level > kZstdLevelMax) {
      return Unfit(fields.NameOf("level"), "it is not from 1 to 19");
    }
    *compression = {Codec::kZstd, static_cast<int>(level)};
    return Status();
  }
  if (level != 0) return Unfit(fields.NameOf("level"), "only zstd has levels; pass 0");
  if (codec != "lz4" && codec != "stored") {
    return Unfit(fields.NameOf("codec"), "it is none of lz4, zstd, stored");
  }
  compression->codec = codec == "lz4" ? Codec::kLz4 : Codec::kStored;
  return Status();
}

// What one field says about another.
Status CheckTogether(const Fields& fields, const MoveOptions& options) {
  if (options.base.has_value() && options.base->size_bytes != options.size_bytes) {
    return Unfit(fields.NameOf("base.size_bytes"), "it differs from size_bytes; pass null as base");
  }
  if (options.earlier.has_value() && options.earlier->size_bytes != options.size_bytes) {
    return Unfit(fields.NameOf("earlier.size_bytes"),
                 "it differs from size_bytes; pass null as earlier");
  }
  if (options.changed == MoveOptions::ChangedKind::kAll) return Status();
  if (!options.base.has_value()) {
    return Unfit(fields.NameOf("base"), "it is null; without a base changed has to be all");
  }
  if (options.changed == MoveOptions::ChangedKind::kBitmap &&
      options.source != MoveOptions::SourceKind::kNbd) {
    return Unfit(fields.NameOf("changed.kind"), "a bitmap needs an nbd source");
  }
  return Status();
}

}  // namespace

Result<StoredDisk> ReadStoredDisk(const Fields& fields) {
  StoredDisk disk;
  ASSIGN_OR_RETURN(disk.root, fields.DigestOrNull("root"));
  ASSIGN_OR_RETURN(disk.size_bytes, fields.Integer("size_bytes"));
  if (disk.root.has_value() && disk.size_bytes == 0) {
    return Unfit(fields.NameOf("root"), "a disk of no bytes has none");
  }
  return disk;
}

Result<MoveOptions> ReadMoveOptions(const Napi::Value& value) {
  MoveOptions options;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "options"));
  ASSIGN_OR_RETURN(options.disk_id, fields.Text("disk_id"));
  if (!IsDiskId(options.disk_id)) {
    return Unfit(fields.NameOf("disk_id"),
                 "it has to be 1 to 255 bytes without control characters");
  }
  ASSIGN_OR_RETURN(options.size_bytes, fields.Integer("size_bytes"));
  ASSIGN_OR_RETURN(const Fields source, fields.Object("source"));
  RETURN_IF_ERROR(ReadSource(source, &options));
  ASSIGN_OR_RETURN(const Fields changed, fields.Object("changed"));
  RETURN_IF_ERROR(ReadChanged(changed, &options));
  ASSIGN_OR_RETURN(const std::optional<Fields> base, fields.ObjectOrNull("base"));
  if (base.has_value()) {
    ASSIGN_OR_RETURN(options.base, ReadStoredDisk(*base));
  }
  ASSIGN_OR_RETURN(const std::optional<Fields> earlier, fields.ObjectOrNull("earlier"));
  if (earlier.has_value()) {
    ASSIGN_OR_RETURN(options.earlier, ReadStoredDisk(*earlier));
  }
  ASSIGN_OR_RETURN(const Fields compression, fields.Object("compression"));
  RETURN_IF_ERROR(ReadCompression(compression, &options.compression));
  ASSIGN_OR_RETURN(const uint64_t stall_timeout_ms, fields.Integer("stall_timeout_ms"));
  if (stall_timeout_ms == 0 || stall_timeout_ms > kStallTimeoutMsMax) {
    return Unfit(fields.NameOf("stall_timeout_ms"), "it is not from 1 to 86400000");
  }
  options.stall_timeout_ms = static_cast<int64_t>(stall_timeout_ms);
  RETURN_IF_ERROR(CheckTogether(fields, options));
  return options;
}

}  // namespace blockferry
