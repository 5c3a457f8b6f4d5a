#include "core/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace blockferry {
namespace {

std::string_view ReasonOf(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return reason::kNotFound;
    case EEXIST:
      return reason::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return reason::kRepositoryFull;
    case EROFS:
      return reason::kRepositoryReadOnly;
    case EACCES:
    case EPERM:
      return reason::kRepositoryDenied;
    default:
      return reason::kRepositoryUnreachable;
  }
}

std::string_view AdviceFor(std::string_view reason) {
  if (reason == reason::kRepositoryFull) return "; free space, committed backups are intact";
  if (reason == reason::kRepositoryReadOnly) return "; mount the file system for writing";
  if (reason == reason::kRepositoryDenied) return "; give this user access to it";
  if (reason == reason::kRepositoryUnreachable) return "; check the storage and try again";
  return "";
}

class SystemFile : public File {
 public:
  SystemFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~SystemFile() override { close(descriptor_); }

  Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
    size_t done = 0;
    while (done < out.size()) {
      ssize_t size = pread(descriptor_, out.data() + done, out.size() - done,
                           static_cast<off_t>(offset + done));
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return FileError("read", path_, errno);
      if (size == 0) break;
      done += static_cast<size_t>(size);
    }
    return done;
  }

  Status Append(Bytes bytes) override {
    while (!bytes.empty()) {
      ssize_t size = write(descriptor_, bytes.data(), bytes.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return FileError("write", path_, errno);
      bytes = bytes.subspan(static_cast<size_t>(size));
    }
    return {};
  }

  Status Sync() override {
    return fsync(descriptor_) == 0 ? Status() : FileError("sync", path_, errno);
  }

  Result<uint64_t> Size() override {
    struct stat status;
    if (fstat(descriptor_, &status) != 0) return FileError("look at", path_, errno);
    return static_cast<uint64_t>(status.st_size);
  }

 private:
  int descriptor_;
  std::string path_;
};

class SystemFileSystem : public FileSystem {
 public:
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    return Open(path, O_RDONLY, "open");
  }

  Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
    return Open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND, "create");
  }

  Status CreateFolder(const std::string& path) override {
    return mkdir(path.c_str(), 0700) == 0 ? Status() : FileError("create folder", path, errno);
  }

  Status Rename(const std::string& from, const std::string& to) override {
    return rename(from.c_str(), to.c_str()) == 0 ? Status() : FileError("rename", from, errno);
  }

  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
    if (errno == EINVAL || errno == ENOSYS) {
      return Status(
          reason::kRepositoryUnreachable,
          "rename " + from +
              ": this file system cannot rename without replacing, which "
              "the commit of a backup needs; put the repository on ext4, XFS, Btrfs or ZFS",
          {{"path", from}});
    }
    return FileError("rename", from, errno);
  }

  Status SyncFolder(const std::string& path) override {
    int descriptor = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return FileError("open folder", path, errno);
    int synced = fsync(descriptor);
    int error_number = errno;
    close(descriptor);
    return synced == 0 ? Status() : FileError("sync folder", path, error_number);
  }

  Result<std::vector<FolderEntry>> List(const std::string& path) override {
    DIR* folder = opendir(path.c_str());
    if (folder == nullptr) return FileError("list", path, errno);
    std::vector<FolderEntry> entries;
    errno = 0;
    while (dirent* entry = readdir(folder)) {
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      entries.push_back({name, IsFolder(path, *entry)});
      errno = 0;
    }
    // A listing that broke off must not look like a short one.
    int error_number = errno;
    closedir(folder);
    if (error_number != 0) return FileError("list", path, error_number);
    std::sort(entries.begin(), entries.end(),
              [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
    return entries;
  }

  Status Remove(const std::string& path) override {
    return unlink(path.c_str()) == 0 ? Status() : FileError("remove", path, errno);
  }

  Status RemoveFolder(const std::string& path) override {
    return rmdir(path.c_str()) == 0 ? Status() : FileError("remove folder", path, errno);
  }

 private:
  static Result<std::unique_ptr<File>> Open(const std::string& path, int flags,
                                            std::string_view doing) {
    int descriptor = open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (descriptor < 0) return FileError(doing, path, errno);
    return std::unique_ptr<File>(std::make_unique<SystemFile>(descriptor, path));
  }

  static bool IsFolder(const std::string& path, const dirent& entry) {
    if (entry.d_type != DT_UNKNOWN) return entry.d_type == DT_DIR;
    struct stat status;
    return lstat((path + "/" + entry.d_name).c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  }
};

}  // namespace

FileSystem& SystemFiles() {
  static SystemFileSystem files;
  return files;
}

Status FileError(std::string_view doing, const std::string& path, int error_number) {
  std::string_view reason = ReasonOf(error_number);
  char buffer[128];
  // The GNU variant: it returns the text, which need not be in the buffer.
  std::string text = strerror_r(error_number, buffer, sizeof(buffer));
  return Status(reason,
                std::string(doing) + " " + path + ": " + text + std::string(AdviceFor(reason)),
                {{"path", path}, {"error", text}});
}

std::string ParentOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

std::string FileNameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Status RemoveIfThere(FileSystem& files, const std::string& path) {
  Status removed = files.Remove(path);
  return removed.Is(reason::kNotFound) ? Status() : removed;
}

Result<ByteVector> ReadWholeFile(FileSystem& files, const std::string& path, uint64_t size_max) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.OpenForRead(path));
  ASSIGN_OR_RETURN(uint64_t size, file->Size());
  if (size > size_max) {
    return Status(reason::kRepositoryDamaged,
                  "read " + path + ": it has " + std::to_string(size) + " bytes, more than the " +
                      std::to_string(size_max) + " that such a file can have",
                  {{"path", path}});
  }
  ByteVector bytes(size);
  ASSIGN_OR_RETURN(size_t read, file->ReadAt(0, bytes));
  bytes.resize(read);
  return bytes;
}

}  // namespace blockferry
