// Packs that are open for reading, a bounded number of them; the one not used for longest is
// closed first. Thread-safe.
#ifndef BLOCKFERRY_REPOSITORY_PACK_FILES_H_
#define BLOCKFERRY_REPOSITORY_PACK_FILES_H_

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "core/file.h"

namespace blockferry {

class PackFiles {
 public:
  PackFiles(FileSystem& files, size_t open_max) : files_(files), open_max_(open_max) {}

  // The file stays usable for as long as the caller keeps the pointer.
  Result<std::shared_ptr<File>> Open(const std::string& path);

  // A pack that is gone must not be read from an old handle.
  void Close(const std::string& path);

 private:
  FileSystem& files_;
  size_t open_max_;
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<File>>> open_;  // Used last comes first.
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_FILES_H_
