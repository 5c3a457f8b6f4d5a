// A file system on which a process is stopped before one of its calls, whatever the call, and goes
// on when the others have done what they wanted: SIGSTOP and SIGCONT, in one thread.
#ifndef BLOCKFERRY_REPOSITORY_STOP_FILES_H_
#define BLOCKFERRY_REPOSITORY_STOP_FILES_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace blockferry {

class StopFiles final : public FileSystem {
 public:
  // `meanwhile` is called before the call with that number, counted from 1.
  StopFiles(FileSystem& files, uint64_t stop_at, std::function<void()> meanwhile)
      : files_(files), stop_at_(stop_at), meanwhile_(std::move(meanwhile)) {}

  bool has_stopped() const { return call_count_ >= stop_at_; }

  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    Step();
    return Wrap(files_.OpenForRead(path));
  }
  Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
    Step();
    return Wrap(files_.CreateExclusive(path));
  }
  Status CreateFolder(const std::string& path) override {
    Step();
    return files_.CreateFolder(path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    Step();
    return files_.Rename(from, to);
  }
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    Step();
    return files_.RenameNoReplace(from, to);
  }
  Status SyncFolder(const std::string& path) override {
    Step();
    return files_.SyncFolder(path);
  }
  Result<std::vector<FolderEntry>> List(const std::string& path) override {
    Step();
    return files_.List(path);
  }
  Status Remove(const std::string& path) override {
    Step();
    return files_.Remove(path);
  }
  Status RemoveFolder(const std::string& path) override {
    Step();
    return files_.RemoveFolder(path);
  }

 private:
  class StopFile final : public File {
   public:
    StopFile(StopFiles* files, std::unique_ptr<File> file)
        : files_(files), file_(std::move(file)) {}
    Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
      files_->Step();
      return file_->ReadAt(offset, out);
    }
    Status Append(Bytes bytes) override {
      files_->Step();
      return file_->Append(bytes);
    }
    Status Sync() override {
      files_->Step();
      return file_->Sync();
    }
    Result<uint64_t> Size() override {
      files_->Step();
      return file_->Size();
    }

   private:
    StopFiles* files_;
    std::unique_ptr<File> file_;
  };

  void Step() {
    if (++call_count_ == stop_at_) meanwhile_();
  }
  Result<std::unique_ptr<File>> Wrap(Result<std::unique_ptr<File>> file) {
    RETURN_IF_ERROR(file);
    return std::unique_ptr<File>(std::make_unique<StopFile>(this, *std::move(file)));
  }

  FileSystem& files_;
  const uint64_t stop_at_;
  const std::function<void()> meanwhile_;
  uint64_t call_count_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_STOP_FILES_H_
