#include "repository/expiry.h"

#include <algorithm>

#include "repository/repository.h"
#include "repository/repository_format.h"

namespace blockferry {

using namespace repository_format;
using Kind = ManifestMark::Kind;

Expiry::Expiry(Repository* repository, uint64_t undo_window, std::string own_folder)
    : repository_(*repository),
      files_(repository->files_),
      undo_window_(undo_window),
      own_folder_(std::move(own_folder)) {}

std::string Expiry::BackupNameOf(const ListedManifest& listed) {
  return FileNameOf(ParentOf(listed.path)) + "/" + listed.backup_id;
}

Status Expiry::ReadTime() {
  ASSIGN_OR_RETURN(time_,
                   blockferry::ReadTime(files_, repository_.folder_, *repository_.limits_.clock));
  return {};
}

bool Expiry::IsOver(const ListedManifest& listed) const {
  if (listed.is_dropped) return true;
  if (!listed.removed_time || listed.is_held) return false;
  if (!listed.manifest && !listed.is_corrupt()) return false;
  if (listed.manifest && listed.manifest->lock_until > time_.now) return false;
  const std::optional<uint64_t> start = StartOf(listed);
  if (!start) return false;
  return undo_window_ == 0 || (*start <= time_.now && time_.now - *start >= undo_window_);
}

// When the window of the latest mark began; of one that no collector has seen: now.
std::optional<uint64_t> Expiry::StartOf(const ListedManifest& listed) const {
  std::optional<uint64_t> start;
  for (const ManifestMark& mark : listed.marks) {
    if (!mark.is_removal()) continue;
    const uint64_t seen = mark.kind == Kind::kExpiring ? mark.time : time_.latest();
    start = std::max(start.value_or(0), seen);
  }
  return start;
}

Result<std::vector<std::string>> Expiry::DropExpired(const Cancel* cancel) {
  ASSIGN_OR_RETURN(std::vector<ListedManifest> listed, repository_.ListManifests(std::nullopt));
  // Read after the marks were listed: none of them is younger.
  ASSIGN_OR_RETURN(time_, repository_.AdvanceTime(false));
  std::vector<std::string> names;
  for (ListedManifest& one : listed) {
    RETURN_IF_ERROR(cancel->Check());
    if (!one.is_held) RETURN_IF_ERROR(Begin(&one));
    if (!IsOver(one)) continue;
    ASSIGN_OR_RETURN(const bool is_dropped, Drop(one));
    if (is_dropped) names.push_back(BackupNameOf(one));
  }
  RETURN_IF_ERROR(RemoveOldMarks());
  return names;
}

Status Expiry::Begin(ListedManifest* listed) {
  bool has_begun = false;
  for (ManifestMark& mark : listed->marks) {
    if (mark.kind != Kind::kRemoved) continue;
    ManifestMark expiring = mark;
    expiring.kind = Kind::kExpiring;
    expiring.time = time_.latest();
    const Status renamed = files_.Rename(NameOf(mark), NameOf(expiring));
    if (renamed.Is(reason::kNotFound)) continue;
    RETURN_IF_ERROR(renamed);
    mark = expiring;
    has_begun = true;
  }
  return has_begun ? files_.SyncFolder(ParentOf(listed->path)) : Status();
}

// From the renaming of the mark on nobody has the backup back. A collector that was fenced
// meanwhile may rename as well: the mark is the one that was looked at, or there is none.
Result<bool> Expiry::Drop(const ListedManifest& listed) {
  const std::string folder = ParentOf(listed.path);
  // The window of one that was fenced may be shorter than that of who took over.
  RETURN_IF_ERROR(CheckOwnFolder());
  if (!listed.is_dropped) {
    const std::optional<uint64_t> start = StartOf(listed);
    const auto latest =
        std::find_if(listed.marks.begin(), listed.marks.end(), [&](const ManifestMark& mark) {
          return mark.kind == Kind::kExpiring && mark.time == start;
        });
    // Somebody took a mark away that was just to be renamed.
    if (latest == listed.marks.end()) return false;
    ManifestMark dropped = *latest;
    dropped.kind = Kind::kDropped;
    const Status renamed = files_.Rename(NameOf(*latest), NameOf(dropped));
    if (renamed.Is(reason::kNotFound)) return false;
    RETURN_IF_ERROR(renamed);
    RETURN_IF_ERROR(files_.SyncFolder(folder));
  }
  RETURN_IF_ERROR(RemoveManifest(listed.path));
  return true;
}

Status Expiry::CheckOwnFolder() const {
  const Status there = ToStatus(files_.List(own_folder_));
  if (!there.Is(reason::kNotFound)) return there;
  return Status(reason::kRunFenced, "drop backups of repository " + repository_.folder_ +
                                        ": a newer collector took over and goes on");
}

// Through the own folder: who was stopped for long, and fenced, must not remove a new backup of the
// same name.
Status Expiry::RemoveManifest(const std::string& path) {
  const std::string folder = ParentOf(path);
  const std::string taken = own_folder_ + "/" + FileNameOf(folder) + "." + FileNameOf(path);
  const Status moved = files_.RenameNoReplace(path, taken);
  if (moved.Is(reason::kNotFound)) return CheckOwnFolder();
  RETURN_IF_ERROR(moved);
  RETURN_IF_ERROR(files_.SyncFolder(folder));
  return RemoveIfThere(files_, taken);
}

Status Expiry::RemoveOldMarks() {
  const std::string manifests = repository_.Path(kManifestsFolder);
  ASSIGN_OR_RETURN(const std::vector<FolderEntry> vms, files_.List(manifests));
  for (const FolderEntry& vm : vms) {
    if (!vm.is_folder || !IsPseudonym(vm.name)) continue;
    const std::string folder = manifests + "/" + vm.name;
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(folder));
    for (const FolderEntry& entry : entries) {
      const std::optional<ManifestMark> mark = ParseManifestMark(entry.name);
      if (!mark) continue;
      const std::string manifest = folder + "/" + mark->stem + kManifestSuffix;
      const Status there = ToStatus(files_.OpenForRead(manifest));
      if (!there.Is(reason::kNotFound)) continue;
      RETURN_IF_ERROR(RemoveIfThere(files_, folder + "/" + entry.name));
    }
  }
  return {};
}

}  // namespace blockferry
