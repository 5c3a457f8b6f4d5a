// Creation of a repository, which is there or not there whenever it is cut off.
#include <algorithm>
#include <iterator>

#include "repository/key_slot_format.h"
#include "repository/repository.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace repository_format;

constexpr char kFirstSlotLabel[] = "created with the repository";
constexpr const char* kFolders[] = {kPacksFolder, kManifestsFolder, kSessionsFolder,
                                    kIncarnationsFolder, kCollectorsFolder};

std::string Join(const std::string& folder, std::string_view inside) {
  return folder + "/" + std::string(inside);
}

// The 256 folders of packs are all made at the start, so that a missing one is an error and never
// looks like one without packs.
std::vector<std::string> PackFolders() {
  std::vector<std::string> folders;
  for (int i = 0; i < 256; ++i) {
    std::byte byte = static_cast<std::byte>(i);
    folders.push_back(std::string(kPacksFolder) + "/" + HexOf(Bytes(&byte, 1)));
  }
  return folders;
}

Status Exists(const std::string& folder, const std::string& what) {
  return Status(reason::kRepositoryExists,
                "create repository " + folder + ": " + what +
                    "; name a folder that is empty or not there yet",
                {{"path", folder}});
}

Status NoParent(const std::string& folder) {
  return Status(
      reason::kRepositoryMissing,
      "create repository " + folder +
          ": the folder that it would be created in does not exist; create that first, or "
          "mount its file system",
      {{"path", folder}});
}

// What a creation that was cut off leaves behind is taken up again: our folders, all empty.
Status CheckEmpty(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(std::vector<FolderEntry> entries, files.List(folder));
  for (const FolderEntry& entry : entries) {
    if (entry.name.starts_with(kNewRepositoryFile)) continue;
    // A time alone lets nothing expire.
    if (!entry.is_folder && entry.name.starts_with(kTimeFile)) continue;
    if (entry.name == kRepositoryFile) return Exists(folder, "there is a repository already");
    // Key slots of a repository without packs open nothing.
    if (entry.is_folder && entry.name == key_slot_format::kKeysFolder) continue;
    bool is_ours = entry.is_folder && std::find(std::begin(kFolders), std::end(kFolders),
                                                entry.name) != std::end(kFolders);
    if (!is_ours) return Exists(folder, "the folder is not empty, it holds " + entry.name);
    std::vector<std::string> insides = {entry.name};
    if (entry.name == kPacksFolder) {
      ASSIGN_OR_RETURN(std::vector<FolderEntry> packs, files.List(Join(folder, kPacksFolder)));
      insides.clear();
      for (const FolderEntry& pack : packs) {
        if (!pack.is_folder) return Exists(folder, "the folder holds packs");
        insides.push_back(std::string(kPacksFolder) + "/" + pack.name);
      }
    }
    for (const std::string& inside : insides) {
      ASSIGN_OR_RETURN(std::vector<FolderEntry> content, files.List(Join(folder, inside)));
      if (!content.empty()) {
        return Exists(folder, "the folder holds a repository without its file \"repository\"");
      }
    }
  }
  return {};
}

// Of creations that were cut off. They may also be of one that still runs: it then finds this one.
void RemoveNewFiles(FileSystem& files, const std::string& folder) {
  Result<std::vector<FolderEntry>> entries = files.List(folder);
  if (!entries.ok()) return;
  for (const FolderEntry& entry : *entries) {
    if (!entry.name.starts_with(kNewRepositoryFile)) continue;
    static_cast<void>(files.Remove(Join(folder, entry.name)));
  }
}

// A folder that is there already is fine.
Status EnsureFolder(FileSystem& files, const std::string& path) {
  Status status = files.CreateFolder(path);
  return status.Is(reason::kAlreadyExists) ? Status() : status;
}

}  // namespace

Result<RepositoryInfo> Repository::Create(FileSystem& files, const std::string& folder,
                                          const Secret* secret, Clock& clock) {
  Status made = files.CreateFolder(folder);
  if (made.Is(reason::kNotFound)) {
    return NoParent(folder);
  }
  if (!made.ok() && !made.Is(reason::kAlreadyExists)) return made;
  if (!made.ok()) {
    Status empty = CheckEmpty(files, folder);
    if (empty.Is(reason::kNotFound)) return Exists(folder, "it is not a folder");
    RETURN_IF_ERROR(empty);
  }
  for (const char* name : kFolders) {
    RETURN_IF_ERROR(EnsureFolder(files, Join(folder, name)));
  }
  for (const std::string& name : PackFolders()) {
    RETURN_IF_ERROR(EnsureFolder(files, Join(folder, name)));
  }
  RETURN_IF_ERROR(files.SyncFolder(Join(folder, kPacksFolder)));
  RETURN_IF_ERROR(files.SyncFolder(folder));

  RETURN_IF_ERROR(WriteFirstTime(files, folder, clock));

  // The file comes last and by rename: a folder that has it is a whole repository. Its first name
  // is this creation's own, so that another one at the same time never renames a torn file.
  RepositoryIdentity identity;
  FillRandom(identity.id);
  identity.is_encrypted = secret != nullptr;
  if (identity.is_encrypted) {
    RepositoryKeys keys;
    FillRandom(keys.naming_key);
    FillRandom(keys.record_key);
    RETURN_IF_ERROR(AddKeySlot(files, folder, identity.id, keys, *secret, kFirstSlotLabel));
  } else {
    FillRandom(identity.naming_key);
  }
  std::byte random[8];
  FillRandom(random);
  std::string temporary = Join(folder, kNewRepositoryFile) + "-" + HexOf(random);
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.CreateExclusive(temporary));
  RETURN_IF_ERROR(file->Append(EncodeIdentity(identity)));
  RETURN_IF_ERROR(file->Sync());
  Status renamed = files.RenameNoReplace(temporary, Join(folder, kRepositoryFile));
  if (renamed.Is(reason::kAlreadyExists) || renamed.Is(reason::kNotFound)) {
    static_cast<void>(files.Remove(temporary));
    return Exists(folder, "another program created one at the same time");
  }
  RETURN_IF_ERROR(renamed);
  RETURN_IF_ERROR(files.SyncFolder(folder));
  RETURN_IF_ERROR(files.SyncFolder(Join(folder, "..")));
  RemoveNewFiles(files, folder);
  return RepositoryInfo{identity.id, kVersion, kBlockSize, identity.is_encrypted, 0, 0, 0};
}

}  // namespace blockferry
