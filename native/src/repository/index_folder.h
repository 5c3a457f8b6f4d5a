// The folder of index files, and the one for scratch files that go with this process.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_FOLDER_H_
#define BLOCKFERRY_REPOSITORY_INDEX_FOLDER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/file.h"
#include "repository/index_file.h"
#include "repository/index_writer.h"

namespace blockferry {

// Thread-safe.
class IndexFolder {
 public:
  IndexFolder(FileSystem& files, const std::string& repository_folder,
              const RepositoryId& repository, std::string scratch_folder, bool read_only,
              DirectoryBudget* budget);

  bool read_only() const { return read_only_; }

  // Adds all entries to the new file and finishes it.
  using Fill = std::function<Status(IndexWriter*)>;
  // A new file that is durable in the repository: temporary name, sync, rename, sync the folder.
  Result<std::shared_ptr<IndexFile>> Make(const Fill& fill);
  // A new file that has no name any more and is gone when it is closed.
  Result<std::shared_ptr<IndexFile>> MakeScratch(const Fill& fill);

  // Names of the index files that other programs made, or this one did before it opened the
  // repository. A missing folder, or one that cannot be read, has none.
  std::vector<std::string> ListForeign();
  // NOT_FOUND when somebody removed it.
  Result<std::shared_ptr<IndexFile>> Open(const std::string& name);
  // What cannot be removed is left: it is only a cache.
  void Remove(const std::string& name);
  // Unfinished files of programs that were killed. Of one that still runs, too: it notices when it
  // renames the file, and makes another one.
  void RemoveUnfinished();

 private:
  Result<std::unique_ptr<File>> Create(const std::string& path);
  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  FileSystem& files_;
  std::string repository_folder_;
  std::string folder_;
  RepositoryId repository_;
  std::string scratch_folder_;
  bool read_only_;
  DirectoryBudget* budget_;
  std::mutex mutex_;
  std::set<std::string> made_;  // Names of the files that this object made.
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_FOLDER_H_
