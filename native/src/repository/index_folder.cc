#include "repository/index_folder.h"

namespace blockferry {

using namespace index_format;

IndexFolder::IndexFolder(FileSystem& files, const std::string& repository_folder,
                         const RepositoryId& repository, std::string scratch_folder, bool read_only,
                         DirectoryBudget* budget)
    : files_(files),
      repository_folder_(repository_folder),
      folder_(repository_folder + "/" + kFolder),
      repository_(repository),
      scratch_folder_(std::move(scratch_folder)),
      read_only_(read_only),
      budget_(budget) {}

// The folder is made when the first file needs it.
Result<std::unique_ptr<File>> IndexFolder::Create(const std::string& path) {
  Result<std::unique_ptr<File>> file = files_.CreateExclusive(path);
  if (!file.status().Is(reason::kNotFound)) return file;
  const Status made = files_.CreateFolder(folder_);
  if (!made.ok() && !made.Is(reason::kAlreadyExists)) return made;
  RETURN_IF_ERROR(files_.SyncFolder(repository_folder_));
  return files_.CreateExclusive(path);
}

Result<std::shared_ptr<IndexFile>> IndexFolder::Make(const Fill& fill) {
  IndexFileId id;
  FillRandom(id);
  const std::string name = HexOf(id) + kSuffix;
  const std::string temporary = PathOf(HexOf(id) + kNewSuffix);
  {
    std::lock_guard lock(mutex_);
    made_.insert(name);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, Create(temporary));
  IndexWriter writer(file.get(), repository_, id);
  Status status = fill(&writer);
  if (status.ok()) status = files_.Rename(temporary, PathOf(name));
  if (status.ok()) status = files_.SyncFolder(folder_);
  if (status.ok()) return IndexFile::Open(std::move(file), name, repository_, budget_);
  static_cast<void>(files_.Remove(temporary));
  Remove(name);
  return status;
}

Result<std::shared_ptr<IndexFile>> IndexFolder::MakeScratch(const Fill& fill) {
  IndexFileId id;
  FillRandom(id);
  const std::string path = scratch_folder_ + "/blockferry-" + HexOf(id) + kNewSuffix;
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.CreateExclusive(path));
  RETURN_IF_ERROR(files_.Remove(path));
  IndexWriter writer(file.get(), repository_, id);
  RETURN_IF_ERROR(fill(&writer));
  return IndexFile::Open(std::move(file), "", repository_, budget_);
}

std::vector<std::string> IndexFolder::ListForeign() {
  std::vector<std::string> names;
  const Result<std::vector<FolderEntry>> entries = files_.List(folder_);
  if (!entries.ok()) return names;
  std::lock_guard lock(mutex_);
  for (const FolderEntry& entry : *entries) {
    if (!entry.is_folder && entry.name.ends_with(kSuffix) && !made_.contains(entry.name)) {
      names.push_back(entry.name);
    }
  }
  return names;
}

Result<std::shared_ptr<IndexFile>> IndexFolder::Open(const std::string& name) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.OpenForRead(PathOf(name)));
  return IndexFile::Open(std::move(file), name, repository_, budget_);
}

void IndexFolder::Remove(const std::string& name) {
  if (!read_only_) static_cast<void>(files_.Remove(PathOf(name)));
}

void IndexFolder::RemoveUnfinished() {
  const Result<std::vector<FolderEntry>> entries = files_.List(folder_);
  if (!entries.ok() || read_only_) return;
  for (const FolderEntry& entry : *entries) {
    if (entry.name.ends_with(kNewSuffix)) Remove(entry.name);
  }
}

}  // namespace blockferry
