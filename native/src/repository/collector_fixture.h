// For tests only: a repository that is collected, on files that others use between two calls.
#ifndef BLOCKFERRY_REPOSITORY_COLLECTOR_FIXTURE_H_
#define BLOCKFERRY_REPOSITORY_COLLECTOR_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/crash_files.h"
#include "core/test_clock.h"
#include "repository/collector.h"
#include "repository/model_disk.h"
#include "repository/pack_file_name.h"
#include "repository/pack_reader.h"

namespace blockferry {

inline constexpr char kFolder[] = "/r";
inline constexpr uint64_t kUndoWindow = 1000;  // Seconds.

// A share on which others do something between two calls of ours.
class SharedFiles final : public CrashFiles {
 public:
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    if (path == denied) return Status(reason::kRepositoryDenied, "open " + path);
    return CrashFiles::OpenForRead(path);
  }
  Result<std::unique_ptr<File>> CreateExclusive(const std::string& path) override {
    Result<std::unique_ptr<File>> created = CrashFiles::CreateExclusive(path);
    if (after_create) std::exchange(after_create, nullptr)(path);
    return created;
  }
  Status Remove(const std::string& path) override {
    if (before_remove) std::exchange(before_remove, nullptr)(path);
    if (!stuck.empty() && path.ends_with(stuck)) {
      return Status(reason::kRepositoryUnreachable, "remove " + path);
    }
    return CrashFiles::Remove(path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    if (before_rename) std::exchange(before_rename, nullptr)(from);
    return CrashFiles::Rename(from, to);
  }
  Status RenameNoReplace(const std::string& from, const std::string& to) override {
    if (before_take && from.ends_with(".manifest")) std::exchange(before_take, nullptr)(from);
    return CrashFiles::RenameNoReplace(from, to);
  }
  // Reads a folder of manifests in two pieces: a mark that gets another name in between is in
  // neither.
  Result<std::vector<FolderEntry>> List(const std::string& path) override {
    if (!amid_list || ParentOf(path) != std::string(kFolder) + "/manifests") {
      return CrashFiles::List(path);
    }
    ASSIGN_OR_RETURN(std::vector<FolderEntry> first, CrashFiles::List(path));
    std::exchange(amid_list, nullptr)(path);
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> second, CrashFiles::List(path));
    std::erase_if(first, [&](const FolderEntry& entry) {
      return std::find(second.begin(), second.end(), entry) == second.end();
    });
    return first;
  }
  std::string denied;  // Somebody took the right to read it away.
  std::string stuck;   // What ends so cannot be removed.
  // Called once. `before_take`: before a manifest is renamed away.
  std::function<void(const std::string&path)> after_create, before_remove, before_rename,
      before_take, amid_list;
};

class CollectorTest : public testing::Test {
 protected:
  CollectorTest() { EXPECT_TRUE(Repository::Create(files_, kFolder, nullptr, clock_).ok()); }

  std::unique_ptr<Repository> Open() {
    RepositoryLimits limits;
    limits.pack_size = 3 * kBlockSize;
    limits.index_memory = 1;
    limits.clock = &clock_;
    limits.reserve_size = reserve_size_;
    return *Repository::Open(files_, kFolder, false, limits);
  }

  std::string Vm(const std::string& name) { return Open()->naming().Pseudonym(name); }

  std::unique_ptr<Session> OpenSession(Repository& repository, const std::string& vm) {
    ++number_;
    Result<std::unique_ptr<Session>> session = repository.OpenSession(
        {repository.naming().Pseudonym(vm), "point-" + std::to_string(number_), {1, number_}});
    EXPECT_TRUE(session.ok()) << session.status().message();
    return *std::move(session);
  }

  Result<Manifest> StoreAndCommit(Session& session, const std::string& backup_id,
                                  const ModelDisk& disk, uint64_t lock_duration = 0) {
    ASSIGN_OR_RETURN(const std::unique_ptr<DiskWriter> writer,
                     session.OpenDisk("d", kModelDiskSize, std::nullopt));
    for (const auto& [index, content] : disk) {
      RETURN_IF_ERROR(PutContent(*writer, index, content));
    }
    ASSIGN_OR_RETURN(const std::optional<Digest> root, writer->Finish());
    return session.Commit({backup_id, "", {{"d", root, kModelDiskSize}}, {}, lock_duration});
  }

  Manifest BackUp(const std::string& vm, const std::string& backup_id, const ModelDisk& disk,
                  uint64_t lock_duration = 0) {
    const std::unique_ptr<Repository> repository = Open();
    const std::unique_ptr<Session> session = OpenSession(*repository, vm);
    Result<Manifest> manifest = StoreAndCommit(*session, backup_id, disk, lock_duration);
    EXPECT_TRUE(manifest.ok()) << manifest.status().message();
    return *std::move(manifest);
  }

  Status Remove(const std::string& vm, const std::string& backup_id) {
    return Open()->RemoveBackup(Vm(vm), backup_id);
  }
  void PassUndoWindow() { clock_.reading.since_boot += 2 * kUndoWindow; }
  // The next collection drops it.
  void RemoveForGood(const std::string& vm, const std::string& backup_id) {
    ASSERT_TRUE(Remove(vm, backup_id).ok());
    ASSERT_TRUE(Collect().ok());
    PassUndoWindow();
  }

  std::vector<std::string> Marks() {
    std::vector<std::string> marks;
    for (const std::string& path : files_.AllFiles()) {
      if (ParseManifestMark(path)) marks.push_back(path);
    }
    return marks;
  }
  bool IsListed(const std::string& vm, const std::string& backup_id) {
    const Result<std::vector<ListedManifest>> listed = Open()->ListManifests(Vm(vm));
    return std::any_of(listed->begin(), listed->end(), [&](const ListedManifest& one) {
      return one.backup_id == backup_id && !one.is_dropped;
    });
  }

  Result<CollectReport> Collect(const std::vector<std::string>& dead_sessions = {},
                                bool dry_run = false) {
    const std::unique_ptr<Repository> repository = Open();
    CollectOptions options;
    options.token = {1, ++number_};
    options.undo_window = kUndoWindow;
    options.dead_sessions = dead_sessions;
    options.dry_run = dry_run;
    const Cancel cancel;
    Progress progress;
    return blockferry::Collect(repository.get(), options, &cancel, &progress);
  }

  // Empty when the backup reads back as that disk.
  std::string Compare(const Manifest& manifest, const ModelDisk& disk) {
    bool failed = false;
    return CompareModelDisk(*Open(), manifest.disks.at(0).root, disk, &failed);
  }

  // The pack that holds the block as a whole or as a patch, empty without one.
  std::string PackOf(const Content& content) {
    const std::unique_ptr<Repository> repository = Open();
    const Digest name = repository->naming().ChunkName(BytesOf(content));
    const RepositoryId id = repository->info().repository_id;
    for (const std::string& path : files_.AllFiles()) {
      const std::optional<PackFileName> file = ParsePackFileName(FileNameOf(path));
      if (!file || file->kind != PackFileName::Kind::kPack) continue;
      const Result<PackTable> table = ReadPackTable(files_, path, id, file->id);
      if (!table.ok()) continue;
      for (const PackEntry& entry : table->entries) {
        if (entry.name == name) return path;
      }
    }
    return "";
  }

  SharedFiles files_;
  TestClock clock_;
  uint64_t number_ = 0;
  uint64_t reserve_size_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_COLLECTOR_FIXTURE_H_
