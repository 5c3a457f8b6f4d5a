// Removing backups, and keeping them from being removed. Nothing is deleted here: marks beside the
// manifests say what the next collection may do.
#include "repository/repository.h"

namespace blockferry {
namespace {

using Kind = ManifestMark::Kind;

std::string FolderOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

Status NotThere(std::string_view doing, const std::string& backup_id, const std::string& what) {
  return Status(reason::kBackupNotFound,
                std::string(doing) + " backup " + backup_id + ": " + what + "; list the backups",
                {{"name", backup_id}});
}

Status Held(const std::string& backup_id) {
  return Status(reason::kBackupHeld,
                "remove backup " + backup_id + ": it is held; release it first",
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
    if (one.backup_id == backup_id && !one.is_dropped) return one;
  }
  return NotThere(doing, backup_id, "this VM has none of that id");
}

Status Repository::SetMark(const ListedManifest& listed, Kind kind, uint64_t time) {
  const std::string path = NameOf({StemOf(listed.path), kind, time});
  const Result<std::unique_ptr<File>> made = files_.CreateExclusive(path);
  if (!made.ok() && !made.status().Is(reason::kAlreadyExists)) return made.status();
  return files_.SyncFolder(FolderOf(path));
}

Status Repository::RemoveMark(const ListedManifest& listed, Kind kind, uint64_t time) {
  const std::string path = NameOf({StemOf(listed.path), kind, time});
  RETURN_IF_ERROR(files_.Remove(path));
  return files_.SyncFolder(FolderOf(path));
}

// Removing and holding each set their mark first and then look for the other's: of two at once at
// least one sees the other and gives way.
Status Repository::RemoveBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "remove"));
  if (found.is_held) return Held(backup_id);
  if (found.removed_time) return {};
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
  RETURN_IF_ERROR(SetMark(found, Kind::kRemoved, time.now));
  ASSIGN_OR_RETURN(const ListedManifest marked, FindManifest(vm_pseudonym, backup_id, "remove"));
  if (!marked.is_held) return {};
  static_cast<void>(RemoveMark(found, Kind::kRemoved, time.now));
  return Held(backup_id);
}

Status Repository::UndeleteBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  for (;;) {
    ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "undelete"));
    if (!found.removed_time) return {};
    const Status removed = RemoveMark(found, Kind::kRemoved, *found.removed_time);
    // Somebody else undeleted it, or a collector dropped it: the next look tells which.
    if (!removed.ok() && !removed.Is(reason::kNotFound)) return removed;
  }
}

Status Repository::HoldBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "hold"));
  RETURN_IF_ERROR(SetMark(found, Kind::kHeld, 0));
  const Result<ListedManifest> marked = FindManifest(vm_pseudonym, backup_id, "hold");
  if (marked.ok() && !marked->removed_time) return {};
  if (!found.is_held) static_cast<void>(RemoveMark(found, Kind::kHeld, 0));
  RETURN_IF_ERROR(marked);
  return NotThere("hold", backup_id, "it is removed; undelete it first");
}

Status Repository::ReleaseBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "release"));
  const Status removed = RemoveMark(found, Kind::kHeld, 0);
  return removed.Is(reason::kNotFound) ? Status() : removed;
}

}  // namespace blockferry
