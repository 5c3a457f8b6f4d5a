// Every file call of the repository goes through this interface, so that tests can record it, fail
// it, or end the process at any call of what the shipped code really does.
//
// Errors carry a reason of the repository: NOT_FOUND for ENOENT and ENOTDIR, ALREADY_EXISTS for
// EEXIST (callers translate these two), REPOSITORY_FULL, REPOSITORY_READ_ONLY, REPOSITORY_DENIED,
// and REPOSITORY_UNREACHABLE for every other answer of the system.
#ifndef BLOCKFERRY_CORE_FILE_H_
#define BLOCKFERRY_CORE_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"

namespace blockferry {

// An open file; closed by its destructor. ReadAt may be called by several threads at once, the
// rest by one.
class File {
 public:
  virtual ~File() = default;
  // Fills `out` from `offset`; fewer bytes only at the end of the file.
  virtual Result<size_t> ReadAt(uint64_t offset, MutableBytes out) = 0;
  virtual Status Append(Bytes bytes) = 0;
  // After a failure the file must not be synced again: the kernel may have dropped its pages.
  virtual Status Sync() = 0;
  virtual Result<uint64_t> Size() = 0;
};

struct FolderEntry {
  std::string name;
  bool is_folder = false;
  bool operator==(const FolderEntry&) const = default;
};

// Called by any thread.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> OpenForRead(const std::string& path) = 0;
  // ALREADY_EXISTS when there is a file of that name. Only its owner may use the new file.
  virtual Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) = 0;
  // ALREADY_EXISTS when there is one. The parent must exist.
  virtual Status CreateFolder(const std::string& path) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  // ALREADY_EXISTS when `to` exists, NOT_FOUND when `from` does not; one of several callers wins.
  virtual Status RenameNoReplace(const std::string& from, const std::string& to) = 0;
  virtual Status SyncFolder(const std::string& path) = 0;
  // Without "." and "..", sorted by name.
  virtual Result<std::vector<FolderEntry>> List(const std::string& path) = 0;
  virtual Status Remove(const std::string& path) = 0;
  // An empty one.
  virtual Status RemoveFolder(const std::string& path) = 0;
};

// The machine's file systems.
FileSystem& SystemFiles();

// The status for a failed call of the system: "<doing> <path>: <what the system says>".
Status FileError(std::string_view doing, const std::string& path, int error_number);

// Of a path with a slash: what is before the last one, and what is behind it.
std::string ParentOf(const std::string& path);
std::string FileNameOf(const std::string& path);

// OK as well when the file is not there.
Status RemoveIfThere(FileSystem& files, const std::string& path);

// Reads a whole file; a longer one than `size_max` is REPOSITORY_DAMAGED.
Result<ByteVector> ReadWholeFile(FileSystem& files, const std::string& path, uint64_t size_max);

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_FILE_H_
