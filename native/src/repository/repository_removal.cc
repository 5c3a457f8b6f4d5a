// Removing backups, and keeping them from being removed. Nothing is deleted here: marks beside the
// manifests say what the next collection may do.
#include "repository/manifest_list.h"
#include "repository/removal_mark.h"
#include "repository/repository.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace repository_format;

Status NotThere(std::string_view doing, const std::string& backup_id, const std::string& what) {
  return Status(reason::kBackupNotFound,
                std::string(doing) + " backup " + backup_id + ": " + what + "; list the backups",
                {{"name", backup_id}});
}

}  // namespace

Result<RepositoryTime> Repository::AdvanceTime(bool confirmed) {
  RETURN_IF_ERROR(CheckWritable("note the time"));
  return blockferry::AdvanceTime(files_, folder_, *limits_.clock, confirmed);
}

Result<ListedManifest> Repository::FindManifest(const std::string& vm_pseudonym,
                                                const std::string& backup_id,
                                                std::string_view doing) {
  RETURN_IF_ERROR(CheckWritable(std::string(doing) + " a backup"));
  ASSIGN_OR_RETURN(const std::vector<ListedManifest> listed, ListManifests(vm_pseudonym));
  for (const ListedManifest& one : listed) {
    if (one.backup_id == backup_id) return one;
  }
  return NotThere(doing, backup_id, "this VM has none of that id");
}

Status Repository::WriteMark(const std::string& path, uint64_t time) {
  std::byte random[8];
  FillRandom(random);
  const std::string fresh = path + "-new-" + HexOf(random);
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files_.CreateExclusive(fresh));
  Status written = file->Append(EncodeMark(time));
  if (written.ok()) written = file->Sync();
  if (written.ok()) written = files_.RenameNoReplace(fresh, path);
  if (!written.ok()) static_cast<void>(files_.Remove(fresh));
  // The one that was there first keeps its time.
  if (!written.ok() && !written.Is(reason::kAlreadyExists)) return written;
  return files_.SyncFolder(path.substr(0, path.rfind('/')));
}

Status Repository::RemoveMark(const std::string& path) {
  RETURN_IF_ERROR(files_.Remove(path));
  return files_.SyncFolder(path.substr(0, path.rfind('/')));
}

Status Repository::RemoveBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "remove"));
  if (found.is_held) {
    return Status(reason::kBackupHeld,
                  "remove backup " + backup_id + ": it is held; release it first",
                  {{"name", backup_id}});
  }
  ASSIGN_OR_RETURN(const RepositoryTime time, AdvanceTime(false));
  // Of one that is damaged the lock cannot be read, nor can anything else.
  if (found.manifest && found.manifest->lock_until > time.now) {
    const std::string until = std::to_string(found.manifest->lock_until);
    return Status(reason::kBackupLocked,
                  "remove backup " + backup_id + ": it is locked until second " + until +
                      " since 1970 of the repository's time, which is " + std::to_string(time.now) +
                      "; wait",
                  {{"name", backup_id}, {"lock_until", until}});
  }
  return WriteMark(MarkOf(found.path, kRemovedSuffix), time.now);
}

// A collector takes the manifest away first and looks at the marks then, so either it sees that
// this mark is gone, or here is seen that the manifest is.
Status Repository::UndeleteBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "undelete"));
  const Status removed = RemoveMark(MarkOf(found.path, kRemovedSuffix));
  if (removed.Is(reason::kNotFound)) return NotThere("undelete", backup_id, "it is not removed");
  RETURN_IF_ERROR(removed);
  return ToStatus(FindManifest(vm_pseudonym, backup_id, "undelete"));
}

Status Repository::HoldBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "hold"));
  ASSIGN_OR_RETURN(const RepositoryTime time, AdvanceTime(false));
  RETURN_IF_ERROR(WriteMark(MarkOf(found.path, kHeldSuffix), time.now));
  return ToStatus(FindManifest(vm_pseudonym, backup_id, "hold"));
}

Status Repository::ReleaseBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "release"));
  const Status removed = RemoveMark(MarkOf(found.path, kHeldSuffix));
  return removed.Is(reason::kNotFound) ? Status() : removed;
}

}  // namespace blockferry
