// A file system for tests in which several processes, one thread each, take turns: one runs, the
// others stand before a file call. A seed decides whose turn it is next, so a history can be played
// again; a process can be left standing until the others have ended, or killed at any of its calls.
#ifndef BLOCKFERRY_REPOSITORY_TURN_FILES_H_
#define BLOCKFERRY_REPOSITORY_TURN_FILES_H_

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/file.h"

namespace blockferry {

class Turns {
 public:
  explicit Turns(uint64_t seed) : random_(seed) {}

  // What one process does. It goes on until `pause_at` calls were made, or before the first call
  // about a path that `pauses_before` tells, then stands still until all others have ended; from
  // call `kill_at` on its calls fail. 0: neither. Calls count from 1.
  struct Process {
    std::function<void(FileSystem&)> run;
    uint64_t pause_at = 0;
    uint64_t kill_at = 0;
    std::function<bool(const std::string& path)> pauses_before = {};
  };

  // Runs all of them to their ends. `switch_one_in`: how seldom the turn is given away.
  void Run(FileSystem& files, std::vector<Process> processes, unsigned switch_one_in) {
    switch_one_in_ = switch_one_in;
    states_.assign(processes.size(), State());
    for (size_t i = 0; i < processes.size(); ++i) {
      states_[i].pause_at = processes[i].pause_at;
      states_[i].kill_at = processes[i].kill_at;
      states_[i].pauses_before = std::move(processes[i].pauses_before);
    }
    current_ = random_() % processes.size();
    std::vector<std::thread> threads;
    for (size_t i = 0; i < processes.size(); ++i) {
      threads.emplace_back([this, i, &files, run = std::move(processes[i].run)] {
        Await(i);
        TurnFiles own(this, i, files);
        run(own);
        End(i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  uint64_t call_count(size_t process) const { return states_[process].call_count; }

 private:
  struct State {
    bool ended = false;
    uint64_t call_count = 0;
    uint64_t pause_at = 0;
    uint64_t kill_at = 0;
    std::function<bool(const std::string& path)> pauses_before;
    bool stands_still() const { return pause_at != 0 && call_count >= pause_at; }
  };

  class TurnFile : public File {
   public:
    TurnFile(Turns* turns, size_t process, std::unique_ptr<File> file, std::string path)
        : turns_(turns), process_(process), file_(std::move(file)), path_(std::move(path)) {}
    Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
      return file_->ReadAt(offset, out);
    }
    Status Append(Bytes bytes) override {
      RETURN_IF_ERROR(turns_->Step(process_, "append to", path_));
      return file_->Append(bytes);
    }
    Status Sync() override {
      RETURN_IF_ERROR(turns_->Step(process_, "sync", path_));
      return file_->Sync();
    }
    Result<uint64_t> Size() override { return file_->Size(); }

   private:
    Turns* turns_;
    size_t process_;
    std::unique_ptr<File> file_;
    std::string path_;
  };

  class TurnFiles : public FileSystem {
   public:
    TurnFiles(Turns* turns, size_t process, FileSystem& files)
        : turns_(turns), process_(process), files_(files) {}
    Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "open", path));
      return Wrap(files_.OpenForRead(path), path);
    }
    Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "create", path));
      return Wrap(files_.CreateExclusive(path), path);
    }
    Status CreateFolder(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "create folder", path));
      return files_.CreateFolder(path);
    }
    Status Rename(const std::string& from, const std::string& to) override {
      RETURN_IF_ERROR(turns_->Step(process_, "rename", from, to));
      return files_.Rename(from, to);
    }
    Status RenameNoReplace(const std::string& from, const std::string& to) override {
      RETURN_IF_ERROR(turns_->Step(process_, "rename", from, to));
      return files_.RenameNoReplace(from, to);
    }
    Status SyncFolder(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "sync folder", path));
      return files_.SyncFolder(path);
    }
    Result<std::vector<FolderEntry>> List(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "list", path));
      return files_.List(path);
    }
    Status Remove(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "remove", path));
      return files_.Remove(path);
    }
    Status RemoveFolder(const std::string& path) override {
      RETURN_IF_ERROR(turns_->Step(process_, "remove folder", path));
      return files_.RemoveFolder(path);
    }

   private:
    Result<std::unique_ptr<File>> Wrap(Result<std::unique_ptr<File>> file,
                                       const std::string& path) {
      RETURN_IF_ERROR(file);
      return std::unique_ptr<File>(
          std::make_unique<TurnFile>(turns_, process_, *std::move(file), path));
    }
    Turns* turns_;
    size_t process_;
    FileSystem& files_;
  };

  // Before each call. TRACE=1 shows what comes of it.
  Status Step(size_t process, const char* what, const std::string& path,
              const std::string& to = "") {
    std::unique_lock lock(mutex_);
    State& state = states_[process];
    ++state.call_count;
    if (state.pauses_before && state.pauses_before(path)) {
      state.pauses_before = nullptr;
      state.pause_at = state.call_count;
    }
    if (state.stands_still() || random_() % switch_one_in_ == 0) {
      Next();
      changed_.wait(lock, [&] { return current_ == process; });
    }
    const bool is_killed = state.kill_at != 0 && state.call_count >= state.kill_at;
    if (is_traced_) {
      std::printf("%zu%s %s %s %s\n", process, is_killed ? " (killed)" : "", what, path.c_str(),
                  to.c_str());
    }
    if (!is_killed) return {};
    return Status(reason::kRepositoryUnreachable, "the process was killed");
  }

  void Await(size_t process) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return current_ == process; });
  }

  void End(size_t process) {
    std::unique_lock lock(mutex_);
    states_[process].ended = true;
    Next();
  }

  // REQUIRES: the lock is held.
  void Next() {
    std::vector<size_t> able;
    std::vector<size_t> standing;
    for (size_t i = 0; i < states_.size(); ++i) {
      if (!states_[i].ended) (states_[i].stands_still() ? standing : able).push_back(i);
    }
    if (able.empty() && standing.empty()) return;
    if (able.empty()) {
      able.push_back(standing[random_() % standing.size()]);
      states_[able.front()].pause_at = 0;
    }
    current_ = able[random_() % able.size()];
    changed_.notify_all();
  }

  const bool is_traced_ = std::getenv("TRACE") != nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::mt19937_64 random_;
  unsigned switch_one_in_ = 1;
  size_t current_ = 0;
  std::vector<State> states_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_TURN_FILES_H_
