// A file system in memory for tests of what a crash leaves behind.
//
// It knows what was synced and what was not. The k-th call that changes something can fail, or be
// the last one; afterwards the tests go on with what the process left (every call took effect),
// with what the platter has at the least (only what was synced), or with a random mixture.
#ifndef BLOCKFERRY_CORE_CRASH_FILES_H_
#define BLOCKFERRY_CORE_CRASH_FILES_H_

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace blockferry {

class CrashFiles : public FileSystem {
 public:
  enum class Survivor { kProcess, kPlatter, kMixture };

  CrashFiles() : root_(std::make_shared<Node>()) { root_->is_folder = true; }

  // An independent copy; nothing is planned in it.
  std::unique_ptr<CrashFiles> Copy() {
    auto copy = std::make_unique<CrashFiles>();
    std::map<Node*, std::shared_ptr<Node>> done;
    copy->root_ = CopyNode(root_, &done);
    return copy;
  }

  uint64_t call_count() const {
    std::lock_guard lock(mutex_);
    return call_count_;
  }
  // From the call with that number (counted from 1 from now on) every call fails as after a crash.
  void CrashAt(uint64_t call) { Plan(call, true, {}); }
  // Only that call fails. An append then has written half of its bytes.
  void FailAt(uint64_t call, Status status) { Plan(call, false, std::move(status)); }
  bool planned_fault_came() const {
    std::lock_guard lock(mutex_);
    return planned_fault_came_;
  }
  // Of the file or folder that the call was about.
  std::string planned_fault_path() const {
    std::lock_guard lock(mutex_);
    return planned_fault_path_;
  }

  // The machine is up again; handles from before are not to be used.
  void Restart(Survivor survivor, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<Renamed> renamed = std::exchange(renamed_, {});
    for (Renamed& one : renamed) {
      const auto found = one.to_folder->entries.find(one.to_name);
      one.was_there_at_the_end = found != one.to_folder->entries.end() && found->second == one.node;
    }
    if (survivor != Survivor::kProcess) Forget(root_, survivor == Survivor::kMixture, &random);
    if (survivor == Survivor::kMixture) KeepRenamed(renamed);
    Plan(0, false, {});
  }

  // The bytes of a file, for tests that damage them.
  ByteVector* Content(const std::string& path) {
    std::shared_ptr<Node> node = FindNode(path);
    return node == nullptr ? nullptr : &node->content;
  }
  std::vector<std::string> AllFiles() {
    std::vector<std::string> paths;
    Collect(root_, "", &paths);
    return paths;
  }

  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (crashed_) return Crashed();
    std::shared_ptr<Node> node = FindNode(path);
    if (node == nullptr) return FileError("open", path, ENOENT);
    return std::unique_ptr<File>(std::make_unique<Handle>(this, node, path));
  }

  Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(path));
    auto [folder, name] = Split(path);
    if (folder == nullptr) return FileError("create", path, ENOENT);
    if (folder->entries.contains(name)) return FileError("create", path, EEXIST);
    auto node = std::make_shared<Node>();
    folder->entries[name] = node;
    return std::unique_ptr<File>(std::make_unique<Handle>(this, node, path));
  }

  Status CreateFolder(const std::string& path) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(path));
    auto [folder, name] = Split(path);
    if (folder == nullptr) return FileError("create folder", path, ENOENT);
    if (folder->entries.contains(name)) return FileError("create folder", path, EEXIST);
    folder->entries[name] = std::make_shared<Node>();
    folder->entries[name]->is_folder = true;
    return {};
  }

  Status Rename(const std::string& from, const std::string& to) override {
    return Move(from, to, true);
  }
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    return Move(from, to, false);
  }

  Status SyncFolder(const std::string& path) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(path));
    std::shared_ptr<Node> node = FindNode(path);
    if (node == nullptr) return FileError("sync folder", path, ENOENT);
    node->synced_entries = node->entries;
    return {};
  }

  Result<std::vector<FolderEntry>> List(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (crashed_) return Crashed();
    std::shared_ptr<Node> node = FindNode(path);
    if (node == nullptr) return FileError("list", path, ENOENT);
    std::vector<FolderEntry> entries;
    for (const auto& [name, child] : node->entries) entries.push_back({name, child->is_folder});
    return entries;
  }

  Status Remove(const std::string& path) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(path));
    auto [folder, name] = Split(path);
    if (folder == nullptr || !folder->entries.contains(name)) {
      return FileError("remove", path, ENOENT);
    }
    folder->entries.erase(name);
    return {};
  }

  Status RemoveFolder(const std::string& path) override {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(path));
    auto [folder, name] = Split(path);
    if (folder == nullptr || !folder->entries.contains(name)) {
      return FileError("remove folder", path, ENOENT);
    }
    if (!folder->entries[name]->entries.empty()) return FileError("remove folder", path, ENOTEMPTY);
    folder->entries.erase(name);
    return {};
  }

 private:
  struct Node {
    bool is_folder = false;
    ByteVector content;
    size_t synced_size = 0;
    std::map<std::string, std::shared_ptr<Node>> entries;
    std::map<std::string, std::shared_ptr<Node>> synced_entries;
  };

  struct Renamed {
    std::shared_ptr<Node> node;
    std::shared_ptr<Node> from_folder;
    std::string from_name;
    std::shared_ptr<Node> to_folder;
    std::string to_name;
    bool was_there_at_the_end = false;
  };

  class Handle : public File {
   public:
    Handle(CrashFiles* files, std::shared_ptr<Node> node, std::string path)
        : files_(files), node_(std::move(node)), path_(std::move(path)) {}
    Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
      std::lock_guard lock(files_->mutex_);
      if (files_->crashed_) return Crashed();
      if (offset >= node_->content.size()) return size_t{0};
      size_t size = std::min<size_t>(out.size(), node_->content.size() - offset);
      std::copy_n(node_->content.begin() + static_cast<ptrdiff_t>(offset), size, out.begin());
      return size;
    }
    Status Append(Bytes bytes) override {
      std::lock_guard lock(files_->mutex_);
      if (files_->crashed_) return Crashed();
      Status status = files_->Count(path_);
      if (!status.ok()) bytes = bytes.first(bytes.size() / 2);
      node_->content.insert(node_->content.end(), bytes.begin(), bytes.end());
      return status;
    }
    Status Sync() override {
      std::lock_guard lock(files_->mutex_);
      if (sync_failed_) std::abort();  // What a failed sync means must never be forgotten.
      Status status = files_->Count(path_);
      sync_failed_ = !status.ok();
      if (status.ok()) node_->synced_size = node_->content.size();
      return status;
    }
    Result<uint64_t> Size() override {
      std::lock_guard lock(files_->mutex_);
      return static_cast<uint64_t>(node_->content.size());
    }

   private:
    CrashFiles* files_;
    std::shared_ptr<Node> node_;
    std::string path_;
    bool sync_failed_ = false;
  };

  static Status Crashed() {
    return Status(reason::kRepositoryUnreachable, "the machine has crashed");
  }

  void Plan(uint64_t call, bool crash, Status failure) {
    std::lock_guard lock(mutex_);
    planned_call_ = call;
    planned_crash_ = crash;
    planned_failure_ = std::move(failure);
    call_count_ = 0;
    crashed_ = false;
    planned_fault_came_ = false;
  }

  Status Count(const std::string& path) {
    if (crashed_) return Crashed();
    if (++call_count_ != planned_call_) return {};
    planned_fault_came_ = true;
    planned_fault_path_ = path;
    crashed_ = planned_crash_;
    return planned_crash_ ? Crashed() : planned_failure_;
  }

  Status Move(const std::string& from, const std::string& to, bool replace) {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(Count(from));
    auto [from_folder, from_name] = Split(from);
    auto [to_folder, to_name] = Split(to);
    if (from_folder == nullptr || to_folder == nullptr ||
        !from_folder->entries.contains(from_name)) {
      return FileError("rename", from, ENOENT);
    }
    if (!replace && to_folder->entries.contains(to_name)) return FileError("rename", from, EEXIST);
    const std::shared_ptr<Node> node = from_folder->entries[from_name];
    const auto synced = from_folder->synced_entries.find(from_name);
    if (synced != from_folder->synced_entries.end() && synced->second == node) {
      renamed_.push_back({node, from_folder, from_name, to_folder, to_name});
    }
    to_folder->entries[to_name] = node;
    from_folder->entries.erase(from_name);
    return {};
  }

  // A journal has both halves of a rename or neither: what was durable at its old place and is
  // nowhere now is there still, unless it was removed at the new one.
  static void KeepRenamed(const std::vector<Renamed>& renamed) {
    for (const Renamed& one : renamed) {
      if (!one.was_there_at_the_end) continue;
      const auto has = [&](const std::shared_ptr<Node>& folder, const std::string& name) {
        const auto found = folder->entries.find(name);
        return found != folder->entries.end() && found->second == one.node;
      };
      if (has(one.from_folder, one.from_name) || has(one.to_folder, one.to_name)) continue;
      one.from_folder->entries[one.from_name] = one.node;
      one.from_folder->synced_entries = one.from_folder->entries;
    }
  }

  std::shared_ptr<Node> FindNode(const std::string& path) {
    std::vector<std::shared_ptr<Node>> nodes = {root_};
    for (size_t at = 0; at < path.size();) {
      size_t end = std::min(path.find('/', at), path.size());
      std::string part = path.substr(at, end - at);
      at = end + 1;
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        if (nodes.size() > 1) nodes.pop_back();
        continue;
      }
      auto child = nodes.back()->entries.find(part);
      if (child == nodes.back()->entries.end()) return nullptr;
      nodes.push_back(child->second);
    }
    return nodes.back();
  }

  std::pair<std::shared_ptr<Node>, std::string> Split(const std::string& path) {
    size_t slash = path.rfind('/');
    return {FindNode(path.substr(0, slash)), path.substr(slash + 1)};
  }

  static std::shared_ptr<Node> CopyNode(const std::shared_ptr<Node>& node,
                                        std::map<Node*, std::shared_ptr<Node>>* done) {
    std::shared_ptr<Node>& copy = (*done)[node.get()];
    if (copy != nullptr) return copy;
    copy = std::make_shared<Node>();
    std::shared_ptr<Node> result = copy;
    result->is_folder = node->is_folder;
    result->content = node->content;
    result->synced_size = node->synced_size;
    for (const auto& [name, child] : node->entries) result->entries[name] = CopyNode(child, done);
    for (const auto& [name, child] : node->synced_entries) {
      result->synced_entries[name] = CopyNode(child, done);
    }
    return result;
  }

  static void Forget(const std::shared_ptr<Node>& node, bool mixture, std::mt19937* random) {
    size_t unsynced = node->content.size() - node->synced_size;
    size_t kept = mixture && unsynced > 0 ? (*random)() % (unsynced + 1) : 0;
    node->content.resize(node->synced_size + kept);
    node->synced_size = node->content.size();
    std::set<std::string> names;
    for (const auto& [name, child] : node->entries) names.insert(name);
    for (const auto& [name, child] : node->synced_entries) names.insert(name);
    std::map<std::string, std::shared_ptr<Node>> entries;
    for (const std::string& name : names) {
      const auto& from = mixture && (*random)() % 2 == 0 ? node->entries : node->synced_entries;
      auto child = from.find(name);
      if (child != from.end()) entries[name] = child->second;
    }
    node->entries = entries;
    node->synced_entries = entries;
    for (const auto& [name, child] : entries) Forget(child, mixture, random);
  }

  static void Collect(const std::shared_ptr<Node>& node, const std::string& path,
                      std::vector<std::string>* paths) {
    for (const auto& [name, child] : node->entries) {
      if (child->is_folder) {
        Collect(child, path + "/" + name, paths);
      } else {
        paths->push_back(path + "/" + name);
      }
    }
  }

  mutable std::mutex mutex_;
  std::shared_ptr<Node> root_;
  std::vector<Renamed> renamed_;  // What was durable where it was renamed from.
  uint64_t call_count_ = 0;
  uint64_t planned_call_ = 0;
  bool planned_crash_ = false;
  Status planned_failure_;
  bool crashed_ = false;
  bool planned_fault_came_ = false;
  std::string planned_fault_path_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_CRASH_FILES_H_
