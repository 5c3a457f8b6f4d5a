// Removing backups, and keeping them from being removed. Nothing is deleted here: marks beside the
// manifests say what the next collection may do.
#include "core/endian.h"
#include "repository/repository.h"
#include "repository/reserve.h"

namespace blockferry {
namespace {

using Kind = ManifestMark::Kind;

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

std::vector<ManifestMark> RemovalsOf(const ListedManifest& listed) {
  std::vector<ManifestMark> removals;
  for (const ManifestMark& mark : listed.marks) {
    if (mark.is_removal()) removals.push_back(mark);
  }
  return removals;
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

Result<ManifestMark> Repository::SetMark(const ListedManifest& listed, Kind kind, uint64_t time) {
  ManifestMark mark{StemOf(listed.path), kind, 0, time};
  std::array<std::byte, sizeof(mark.id)> random;
  FillRandom(random);
  mark.id = LoadLe<uint64_t>(random.data());
  RETURN_IF_ERROR(files_.CreateExclusive(NameOf(mark)));
  RETURN_IF_ERROR(files_.SyncFolder(ParentOf(mark.stem)));
  return mark;
}

Status Repository::RemoveMarks(const std::vector<ManifestMark>& marks) {
  for (const ManifestMark& mark : marks) RETURN_IF_ERROR(RemoveIfThere(files_, NameOf(mark)));
  return marks.empty() ? Status() : files_.SyncFolder(ParentOf(marks.front().stem));
}

Status Repository::MakeReserve() {
  RETURN_IF_ERROR(CheckWritable("make the reserve of"));
  return blockferry::MakeReserve(files_, folder_, limits_.reserve_size);
}

bool Repository::ReleaseReserve() {
  return !read_only_ && blockferry::ReleaseReserve(files_, folder_);
}

Status Repository::RemoveBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  const Status removed = MarkRemoved(vm_pseudonym, backup_id);
  if (!removed.Is(reason::kRepositoryFull) || !ReleaseReserve()) return removed;
  return MarkRemoved(vm_pseudonym, backup_id);
}

// Removing and holding each set their mark first and then look for the other's: of two at once at
// least one sees the other and gives way. Each takes back its own mark and no other.
Status Repository::MarkRemoved(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "remove"));
  if (found.is_held) return Held(backup_id);
  // Of one that is corrupt the lock cannot be read, nor can anything else.
  if (!found.manifest && !found.is_corrupt()) return found.damage;
  if (found.removed_time) return {};
  ASSIGN_OR_RETURN(const RepositoryTime time, AdvanceTime(false));
  if (found.manifest && found.manifest->lock_until > time.now) {
    const std::string until = std::to_string(found.manifest->lock_until);
    return Status(reason::kBackupLocked,
                  "remove backup " + backup_id + ": it is locked until second " + until +
                      " since 1970 of the repository's time, which is " + std::to_string(time.now) +
                      "; wait",
                  {{"name", backup_id}, {"lock_until", until}});
  }
  ASSIGN_OR_RETURN(const ManifestMark mark, SetMark(found, Kind::kRemoved, time.now));
  const Result<ListedManifest> marked = FindManifest(vm_pseudonym, backup_id, "remove");
  if (marked.ok() && !marked->is_held) return {};
  RETURN_IF_ERROR(RemoveMarks({mark}));
  // A collector may have renamed it before that; it does so once.
  ASSIGN_OR_RETURN(ListedManifest left, FindManifest(vm_pseudonym, backup_id, "remove"));
  std::erase_if(left.marks, [&](const ManifestMark& other) {
    return !other.is_removal() || other.id != mark.id;
  });
  RETURN_IF_ERROR(RemoveMarks(left.marks));
  RETURN_IF_ERROR(marked);
  return Held(backup_id);
}

Status Repository::UndeleteBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  for (;;) {
    ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "undelete"));
    // A collector may have renamed a mark meanwhile: the next look tells.
    if (!found.removed_time) return {};
    RETURN_IF_ERROR(RemoveMarks(RemovalsOf(found)));
  }
}

Status Repository::HoldBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "hold"));
  // Also when it is held: whose mark that is may be about to take it back.
  ASSIGN_OR_RETURN(const ManifestMark mark, SetMark(found, Kind::kHeld, 0));
  const Result<ListedManifest> marked = FindManifest(vm_pseudonym, backup_id, "hold");
  if (marked.ok() && !marked->removed_time) return {};
  RETURN_IF_ERROR(RemoveMarks({mark}));
  RETURN_IF_ERROR(marked);
  return NotThere("hold", backup_id, "it is removed; undelete it first");
}

Status Repository::ReleaseBackup(const std::string& vm_pseudonym, const std::string& backup_id) {
  ASSIGN_OR_RETURN(const ListedManifest found, FindManifest(vm_pseudonym, backup_id, "release"));
  if (!found.is_held) return {};
  // A removal that was refused and could not take its mark back: it must not count once the hold
  // is gone.
  RETURN_IF_ERROR(RemoveMarks(RemovalsOf(found)));
  std::vector<ManifestMark> holds;
  for (const ManifestMark& mark : found.marks) {
    if (mark.kind == Kind::kHeld) holds.push_back(mark);
  }
  return RemoveMarks(holds);
}

}  // namespace blockferry
