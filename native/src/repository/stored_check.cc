#include "repository/stored_check.h"

#include <algorithm>

#include "core/endian.h"
#include "repository/checkpoint_files.h"
#include "repository/damage_mark.h"
#include "repository/index_file.h"
#include "repository/index_format.h"
#include "repository/key_slot_format.h"
#include "repository/manifest_format.h"
#include "repository/pack_file_name.h"
#include "repository/pack_format.h"
#include "repository/pack_reader.h"
#include "repository/repository_format.h"
#include "repository/repository_identity.h"
#include "repository/repository_keys.h"
#include "repository/repository_time.h"
#include "repository/waiting_list.h"

namespace blockferry {
namespace {

using namespace repository_format;

class Check {
 public:
  Check(FileSystem& files, std::string folder, const Cancel* cancel, Progress* progress,
        RateLimit* rate_limit)
      : files_(files),
        folder_(std::move(folder)),
        cancel_(cancel),
        progress_(*progress),
        rate_limit_(*rate_limit) {}

  Result<StoredReport> Run() {
    RETURN_IF_ERROR(ReadIdentity());
    RETURN_IF_ERROR(CheckPacks());
    RETURN_IF_ERROR(CheckSubfolders(kManifestsFolder, [this](const std::string& path) {
      return path.ends_with(kManifestSuffix) ? CheckManifest(path) : Status();
    }));
    RETURN_IF_ERROR(CheckSubfolders(kSessionsFolder, [this](const std::string& path) {
      return CheckpointFiles::IsCheckpoint(path) ? CheckCheckpoint(path) : Status();
    }));
    RETURN_IF_ERROR(CheckFolder(kCollectorsFolder, [this](const std::string& path) {
      return path.ends_with(kSessionsSuffix) ? CheckList(path) : Status();
    }));
    RETURN_IF_ERROR(CheckFolder(key_slot_format::kKeysFolder, [this](const std::string& path) {
      return path.ends_with(key_slot_format::kKeySuffix) ? CheckSlot(path) : Status();
    }));
    RETURN_IF_ERROR(CheckFolder(index_format::kFolder, [this](const std::string& path) {
      return path.ends_with(index_format::kSuffix) ? CheckIndex(path) : Status();
    }));
    RETURN_IF_ERROR(CheckTime());
    return report_;
  }

 private:
  void Note(const std::string& path, std::string what, uint64_t offset, uint64_t size) {
    report_.damages.push_back({path, std::move(what), offset, size});
    progress_.block_count.Add(1);
  }
  void Count(uint64_t size) {
    ++report_.file_count;
    report_.checked += size;
    progress_.position_bytes.Add(size);
  }

  // Without value, and noted unless it is gone, when it cannot be read.
  std::optional<ByteVector> Read(const std::string& path, uint64_t size_max) {
    Result<ByteVector> bytes = ReadWholeFile(files_, folder_ + "/" + path, size_max);
    if (bytes.ok()) {
      Count(bytes->size());
      return *std::move(bytes);
    }
    if (!bytes.status().Is(reason::kNotFound)) Note(path, bytes.status().message(), 0, 0);
    return std::nullopt;
  }

  template <typename CheckFile>
  Status CheckFolder(const std::string& folder, CheckFile check) {
    const Result<std::vector<FolderEntry>> entries = files_.List(folder_ + "/" + folder);
    if (entries.status().Is(reason::kNotFound)) return {};
    RETURN_IF_ERROR(entries);
    for (const FolderEntry& entry : *entries) {
      const uint64_t before = report_.checked;
      if (!entry.is_folder) RETURN_IF_ERROR(check(folder + "/" + entry.name));
      RETURN_IF_ERROR(rate_limit_.Take(report_.checked - before, *cancel_));
    }
    return {};
  }

  template <typename CheckFile>
  Status CheckSubfolders(const std::string& folder, CheckFile check) {
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(folder_ + "/" + folder));
    for (const FolderEntry& entry : entries) {
      if (entry.is_folder) RETURN_IF_ERROR(CheckFolder(folder + "/" + entry.name, check));
    }
    return {};
  }

  Status ReadIdentity() {
    const std::optional<ByteVector> bytes = Read(kRepositoryFile, kFileSize);
    if (!bytes) return {};
    const Result<RepositoryIdentity> identity = DecodeIdentity(*bytes, kRepositoryFile);
    if (identity.ok()) {
      id_ = identity->id;
    } else {
      Note(kRepositoryFile, identity.status().message(), 0, bytes->size());
    }
    return {};
  }

  // ---- Packs

  Status CheckPacks() {
    return CheckSubfolders(kPacksFolder, [this](const std::string& path) {
      const std::optional<PackFileName> name =
          ParsePackFileName(std::string_view(path).substr(path.rfind('/') + 1));
      if (name && name->kind == PackFileName::Kind::kPack) CheckPack(path, name->id);
      return Status();
    });
  }

  void CheckPack(const std::string& path, const PackId& id) {
    const std::optional<ByteVector> bytes = Read(path, pack_format::kPackSizeMax);
    if (!bytes || !id_) return;
    const Result<PackTable> table = ReadPackTable(files_, folder_ + "/" + path, *id_, id);
    if (!table.ok()) return Note(path, table.status().message(), 0, bytes->size());
    uint64_t at = pack_format::kHeaderSize;
    for (const PackEntry& entry : table->entries) {
      const uint64_t size = pack_format::kRecordHeaderSize + uint64_t{entry.stored_size};
      // Records follow each other without gaps, so that no byte is left out.
      if (entry.offset != at) return Note(path, "a record is not where the one before ends", at, 0);
      const Status whole = CheckWholeRecord(Bytes(*bytes).subspan(at, size), entry);
      if (!whole.ok()) {
        Note(path, "record " + HexOf(entry.name) + ": " + whole.message(), at, size);
        SetDamageMark(files_, ParentOf(folder_ + "/" + path), {id, entry.offset});
      }
      at += size;
    }
    if (at + table->table_size != bytes->size()) {
      Note(path, "there is something between the records and the table", at, 0);
    }
  }

  // ---- Small files

  Status CheckManifest(const std::string& path) {
    const std::optional<ByteVector> bytes = Read(path, manifest_format::kFileSizeMax);
    if (!bytes) return {};
    const Status whole = CheckManifestDigest(*bytes);
    if (!whole.ok()) Note(path, whole.message(), 0, bytes->size());
    return {};
  }

  Status CheckCheckpoint(const std::string& path) {
    CountSize(path);
    if (!CheckpointFiles::Read(files_, folder_ + "/" + path) && IsThere(path)) {
      Note(path, "the checkpoint is damaged; its session starts over", 0, 0);
    }
    return {};
  }

  Status CheckList(const std::string& path) {
    CountSize(path);
    if (!ReadWaitingList(files_, folder_ + "/" + path) && IsThere(path)) {
      Note(path, "the list is damaged; the next collection makes it anew", 0, 0);
    }
    return {};
  }

  Status CheckSlot(const std::string& path) {
    const std::optional<ByteVector> bytes = Read(path, key_slot_format::kFileSizeMax);
    if (bytes && !IsWholeKeySlot(*bytes)) {
      Note(path, "the key slot is damaged: its secret opens nothing; add it again", 0,
           bytes->size());
    }
    return {};
  }

  Status CheckTime() {
    CountSize(kTimeFile);
    const Status whole = CheckTimeFile(files_, folder_);
    if (!whole.ok()) Note(kTimeFile, whole.message(), 0, 0);
    return {};
  }

  Status CheckIndex(const std::string& path) {
    Result<std::unique_ptr<File>> file = files_.OpenForRead(folder_ + "/" + path);
    if (file.status().Is(reason::kNotFound) || !id_) return {};
    CountSize(path);
    DirectoryBudget budget(0);
    const std::string name = path.substr(path.rfind('/') + 1);
    Status whole = ToStatus(file);
    if (whole.ok()) {
      const Result<std::shared_ptr<IndexFile>> index =
          IndexFile::Open(*std::move(file), name, *id_, &budget);
      whole = index.ok() ? (*index)->CheckAll() : index.status();
    }
    if (!whole.ok()) Note(path, whole.message() + "; it is only a cache", 0, 0);
    return {};
  }

  bool IsThere(const std::string& path) {
    return !files_.OpenForRead(folder_ + "/" + path).status().Is(reason::kNotFound);
  }
  void CountSize(const std::string& path) {
    const Result<std::unique_ptr<File>> file = files_.OpenForRead(folder_ + "/" + path);
    if (!file.ok()) return;
    const Result<uint64_t> size = (*file)->Size();
    if (size.ok()) Count(*size);
  }

  FileSystem& files_;
  const std::string folder_;
  const Cancel* cancel_;
  Progress& progress_;
  RateLimit& rate_limit_;
  std::optional<RepositoryId> id_;  // Absent when the file `repository` is damaged.
  StoredReport report_;
};

}  // namespace

Result<StoredReport> CheckStored(FileSystem& files, const std::string& folder, const Cancel* cancel,
                                 Progress* progress, RateLimit* rate_limit) {
  return Check(files, folder, cancel, progress, rate_limit).Run();
}

}  // namespace blockferry
