#include "repository/checkpoint_files.h"

#include "core/blake3.h"
#include "core/endian.h"
#include "repository/checkpoint_format.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace checkpoint_format;
using repository_format::kCheckpointSuffix;
using repository_format::kNewCheckpointSuffix;

// "@" is in no point id, so that no point id is the start of another's file name.
std::string StartOf(std::string_view point_id) { return std::string(point_id) + "@"; }

}  // namespace

CheckpointFiles::CheckpointFiles(FileSystem& files, const Naming* naming, std::string folder,
                                 std::string session_folder, std::string point_id)
    : files_(files),
      naming_(naming),
      folder_(std::move(folder)),
      session_folder_(std::move(session_folder)),
      point_id_(std::move(point_id)) {}

std::string CheckpointFiles::Path(std::string_view disk_id) const {
  return folder_ + "/" + StartOf(point_id_) + naming_->Pseudonym(disk_id) + kCheckpointSuffix;
}

std::string CheckpointFiles::NewPath(std::string_view disk_id) const {
  return session_folder_ + "/" + naming_->Pseudonym(disk_id) + kNewCheckpointSuffix;
}

bool CheckpointFiles::IsCheckpoint(std::string_view file_name) {
  return file_name.ends_with(kCheckpointSuffix);
}

bool CheckpointFiles::IsOwn(std::string_view file_name) const {
  return IsCheckpoint(file_name) && file_name.starts_with(StartOf(point_id_));
}

Status CheckpointFiles::Write(std::string_view disk_id, Bytes state,
                              std::span<const PackId> pack_ids) {
  ByteVector bytes(state.begin(), state.end());
  ByteWriter out(&bytes);
  for (const PackId& id : pack_ids) out.PutBytes(id);
  out.Put(static_cast<uint32_t>(pack_ids.size()));
  out.PutBytes(Blake3Hash(bytes));

  const std::string fresh = NewPath(disk_id);
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files_.CreateExclusive(fresh));
  RETURN_IF_ERROR(file->Append(bytes));
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(files_.Rename(fresh, Path(disk_id)));
  return files_.SyncFolder(folder_);
}

void CheckpointFiles::Remove() {
  const Result<std::vector<FolderEntry>> entries = files_.List(folder_);
  if (!entries.ok()) return;
  for (const FolderEntry& entry : *entries) {
    if (IsOwn(entry.name)) static_cast<void>(files_.Remove(folder_ + "/" + entry.name));
  }
}

std::optional<CheckpointFile> CheckpointFiles::Load(std::string_view disk_id) {
  return Read(files_, Path(disk_id));
}

std::optional<CheckpointFile> CheckpointFiles::Read(FileSystem& files, const std::string& path) {
  const Result<ByteVector> bytes = ReadWholeFile(files, path, kFileSizeMax);
  if (!bytes.ok() || bytes->size() < sizeof(uint32_t) + kDigestSize) return std::nullopt;
  Bytes rest = Bytes(*bytes).first(bytes->size() - kDigestSize);
  if (!Equal(Blake3Hash(rest), Bytes(*bytes).last(kDigestSize))) return std::nullopt;
  const uint32_t pack_count = LoadLe<uint32_t>(rest.last(sizeof(uint32_t)).data());
  rest = rest.first(rest.size() - sizeof(uint32_t));
  if (rest.size() / sizeof(PackId) < pack_count) return std::nullopt;
  const Bytes ids = rest.last(pack_count * sizeof(PackId));
  rest = rest.first(rest.size() - ids.size());
  CheckpointFile checkpoint{ByteVector(rest.begin(), rest.end()), std::vector<PackId>(pack_count)};
  std::copy(ids.begin(), ids.end(), reinterpret_cast<std::byte*>(checkpoint.pack_ids.data()));
  return checkpoint;
}

}  // namespace blockferry
