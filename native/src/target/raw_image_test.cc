#include "target/raw_image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "target/image_lock.h"

namespace blockferry {
namespace {

class RawImageTest : public ::testing::Test {
 protected:
  RawImageTest() {
    char name[] = "/tmp/raw_image_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/disk";
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const ByteVector sevens(kSize, std::byte{7});
    EXPECT_EQ(pwrite(fd, sevens.data(), kSize, 0), static_cast<ssize_t>(kSize));
    close(fd);
  }
  ~RawImageTest() override { std::filesystem::remove_all(folder_); }

  int Open() const { return open(path_.c_str(), O_RDWR | O_CLOEXEC); }
  ByteVector Content() const {
    ByteVector bytes(kSize);
    const int fd = Open();
    EXPECT_EQ(pread(fd, bytes.data(), kSize, 0), static_cast<ssize_t>(kSize));
    close(fd);
    return bytes;
  }

  static constexpr size_t kSize = 256 * 1024;
  std::string folder_;
  std::string path_;
};

TEST_F(RawImageTest, WritesAndZeroesOnlyWhatItIsTold) {
  {
    RawImage image(Open(), path_);
    ASSERT_TRUE(image.Write(4096, ByteVector(8192, std::byte{1})).ok());
    ASSERT_TRUE(image.Zero(65536, 65536).ok());
    ASSERT_TRUE(image.Zero(kSize - 512, 512).ok());
    ASSERT_TRUE(image.Finish().ok());
  }
  ByteVector expected(kSize, std::byte{7});
  std::fill_n(expected.begin() + 4096, 8192, std::byte{1});
  std::fill_n(expected.begin() + 65536, 65536, std::byte{0});
  std::fill_n(expected.begin() + kSize - 512, 512, std::byte{0});
  EXPECT_TRUE(Equal(Content(), expected));
  EXPECT_EQ(std::filesystem::file_size(path_), kSize);
}

TEST_F(RawImageTest, GivesRoomBack) {
  RawImage image(Open(), path_);
  ASSERT_TRUE(image.Zero(0, kSize).ok());
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, static_cast<blkcnt_t>(kSize));
}

TEST_F(RawImageTest, StaysWithoutFinish) {
  { RawImage image(Open(), path_); }
  EXPECT_TRUE(Equal(Content(), ByteVector(kSize, std::byte{7})));
}

TEST_F(RawImageTest, SaysWhenItMayNotGrow) {
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit small = before;
  small.rlim_cur = kSize;
  setrlimit(RLIMIT_FSIZE, &small);
  RawImage image(Open(), path_);
  const Status failure = image.Write(kSize, ByteVector(4096));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(failure.Is(reason::kTargetFull));
}

TEST_F(RawImageTest, IsLockedForOneAtATime) {
  const int one = Open();
  const int other = Open();
  ASSERT_TRUE(LockImage(one, path_).ok());
  EXPECT_TRUE(LockImage(other, path_).Is(reason::kTargetInUse));
  // A refused attempt leaves nothing behind that would refuse the holder.
  EXPECT_TRUE(LockImage(one, path_).ok());
  // The lock belongs to the open file: it stays while a duplicate is open.
  const int duplicate = dup(one);
  close(one);
  EXPECT_TRUE(LockImage(other, path_).Is(reason::kTargetInUse));
  close(duplicate);
  EXPECT_TRUE(LockImage(other, path_).ok());
  close(other);
}

TEST_F(RawImageTest, IsReadFromTheDiskWhenTheCacheIsForgotten) {
  const int fd = Open();
  EXPECT_TRUE(ForgetCached(fd, path_).ok());
  close(fd);
  EXPECT_TRUE(Equal(Content(), ByteVector(kSize, std::byte{7})));
  EXPECT_TRUE(ForgetCached(-1, path_).Is(reason::kTargetWriteFailed));
}

}  // namespace
}  // namespace blockferry
