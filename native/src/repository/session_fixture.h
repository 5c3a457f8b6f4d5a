// A repository in memory with one VM and a disk, for the tests of sessions.
#ifndef BLOCKFERRY_REPOSITORY_SESSION_FIXTURE_H_
#define BLOCKFERRY_REPOSITORY_SESSION_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/crash_files.h"
#include "repository/repository.h"
#include "repository/session.h"
#include "repository/test_disk.h"

namespace blockferry {

inline constexpr char kFolder[] = "/r";
inline constexpr uint64_t kSize = 300 * uint64_t{kBlockSize} + 512;

// Every promise holds whether packs are sealed at once or in the background.
class SessionTest : public testing::TestWithParam<bool> {
 protected:
  SessionTest() {
    EXPECT_TRUE(Repository::Create(files_, kFolder).ok());
    Reopen();
    vm_ = repository_->naming().Pseudonym("vm-1");
    for (uint32_t i = 0; i < 40; ++i) disk_[i * 7] = 100 + i;
    disk_[300] = 7;  // The short block at the end.
  }

  void Reopen() {
    repository_.reset();
    // Small packs, so that one backup has several.
    Result<std::unique_ptr<Repository>> opened =
        Repository::Open(files_, kFolder, false, {512 * 1024, 2, GetParam()});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    repository_ = *std::move(opened);
  }

  std::unique_ptr<Session> Open(const std::string& point, FencingToken token) {
    Result<std::unique_ptr<Session>> session = repository_->OpenSession({vm_, point, token});
    EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.status().message());
    return session.ok() ? *std::move(session) : nullptr;
  }

  // A full backup of disk_, by a session of its own.
  Result<Manifest> BackUp(const std::string& backup_id, FencingToken token) {
    std::unique_ptr<Session> session = Open("point-" + backup_id, token);
    ASSIGN_OR_RETURN(std::optional<Digest> root, StoreTestDisk(*session, "d", disk_, kSize));
    return session->Commit({backup_id, "", {{"d", root, kSize}}, {}});
  }

  std::vector<std::string> SessionFolders() {
    std::vector<std::string> found;
    const std::string folder = "/r/sessions/" + vm_;
    const Result<std::vector<FolderEntry>> entries = files_.List(folder);
    for (const FolderEntry& entry : *entries) {
      if (entry.is_folder) found.push_back(folder + "/" + entry.name);
    }
    return found;
  }

  std::vector<std::string> SessionFiles() {
    std::vector<std::string> found;
    for (const std::string& path : files_.AllFiles()) {
      if (path.starts_with("/r/sessions/")) found.push_back(path);
    }
    return found;
  }

  CrashFiles files_;
  std::unique_ptr<Repository> repository_;
  std::string vm_;
  TestDisk disk_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_SESSION_FIXTURE_H_
