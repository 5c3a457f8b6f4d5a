#include "target/raw_target.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

namespace blockferry {
namespace {

class RawTargetTest : public ::testing::Test {
 protected:
  RawTargetTest() {
    char name[] = "/tmp/raw_target_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/disk";
  }
  ~RawTargetTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::string path_;
};

TEST_F(RawTargetTest, WritesInAnyOrderAndKeepsHoles) {
  constexpr uint64_t kSize = uint64_t{1} << 40;
  auto target = RawTarget::Create(path_, kSize);
  ASSERT_TRUE(target.ok());
  const ByteVector data(65536, std::byte{5});
  ASSERT_TRUE((*target)->Write(kSize - 65536, data).ok());
  ASSERT_TRUE((*target)->Write(65536, data).ok());
  ASSERT_TRUE((*target)->Finish().ok());
  target->reset();
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), kSize);
  EXPECT_LE(info.st_blocks * 512, 1 << 20);
  ByteVector back(65536);
  const int fd = open(path_.c_str(), O_RDONLY);
  ASSERT_EQ(pread(fd, back.data(), back.size(), 65536), 65536);
  close(fd);
  EXPECT_TRUE(Equal(back, data));
}

TEST_F(RawTargetTest, RemovesAFileThatWasNotFinished) {
  auto target = RawTarget::Create(path_, 1000);
  ASSERT_TRUE(target.ok());
  EXPECT_TRUE(std::filesystem::exists(path_));
  target->reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(RawTargetTest, LeavesAFileThatWasThereBefore) {
  auto first = RawTarget::Create(path_, 1000);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE((*first)->Finish().ok());
  EXPECT_TRUE(RawTarget::Create(path_, 1000).status().Is(reason::kTargetExists));
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(RawTargetTest, SaysWhyThePlaceCannotBeUsed) {
  EXPECT_TRUE(
      RawTarget::Create(folder_ + "/missing/disk", 1).status().Is(reason::kTargetWriteFailed));
  // The size limit of the process stands for a full file system.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = RawTarget::Create(path_, 100000).status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(full.Is(reason::kTargetFull));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace blockferry
