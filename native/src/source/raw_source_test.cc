#include "source/raw_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "core/bytes.h"

namespace blockferry {
namespace {

class RawSourceTest : public ::testing::Test {
 protected:
  RawSourceTest() {
    char name[] = "/tmp/raw_source_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/disk";
  }
  ~RawSourceTest() override { std::filesystem::remove_all(folder_); }

  void WriteAt(uint64_t offset_bytes, Bytes bytes) {
    const int fd = open(path_.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes)),
              static_cast<ssize_t>(bytes.size()));
    close(fd);
  }
  void Resize(uint64_t size_bytes) {
    const int fd = open(path_.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(ftruncate(fd, static_cast<off_t>(size_bytes)), 0);
    close(fd);
  }

  std::string folder_;
  std::string path_;
  Cancel cancel_;
};

constexpr uint64_t kMiB = 1024 * 1024;

TEST_F(RawSourceTest, KnowsTheHolesOfASparseFile) {
  Resize(4 * kMiB);
  const ByteVector data(kMiB, std::byte{7});
  WriteAt(2 * kMiB, data);
  auto source = RawSource::Open(path_, 4 * kMiB, &cancel_);
  ASSERT_TRUE(source.ok());
  std::vector<std::pair<uint64_t, bool>> ends;
  for (uint64_t at = 0; at < 4 * kMiB;) {
    const Result<Extent> extent = (*source)->ExtentAt(at);
    ASSERT_TRUE(extent.ok());
    EXPECT_EQ(extent->offset_bytes, at);
    at = extent->end_bytes();
    ends.emplace_back(at, extent->allocated);
  }
  EXPECT_EQ(ends, (std::vector<std::pair<uint64_t, bool>>{
                      {2 * kMiB, false}, {3 * kMiB, true}, {4 * kMiB, false}}));
}

TEST_F(RawSourceTest, HandsOutReadsInTheOrderOfTheirRequests) {
  ByteVector data(1000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i % 251);
  WriteAt(0, data);
  auto source = RawSource::Open(path_, 1000, &cancel_);
  ASSERT_TRUE(source.ok());
  ByteVector first(300), second(300);
  ASSERT_TRUE((*source)->Submit(700, first).ok());
  ASSERT_TRUE((*source)->Submit(100, second).ok());
  ASSERT_TRUE((*source)->Await().ok());
  EXPECT_TRUE(Equal(first, Bytes(data).subspan(700, 300)));
  ASSERT_TRUE((*source)->Await().ok());
  EXPECT_TRUE(Equal(second, Bytes(data).subspan(100, 300)));
}

TEST_F(RawSourceTest, RefusesAnotherSizeThanWasPromised) {
  Resize(1000);
  EXPECT_TRUE(RawSource::Open(path_, 1001, &cancel_).status().Is(reason::kDiskSizeMismatch));
  EXPECT_TRUE(RawSource::Open(path_, 0, &cancel_).status().Is(reason::kDiskSizeMismatch));
}

TEST_F(RawSourceTest, RefusesWhatIsNoImage) {
  EXPECT_TRUE(RawSource::Open(path_, 0, &cancel_).status().Is(reason::kImageMissing));
  EXPECT_TRUE(RawSource::Open(folder_, 0, &cancel_).status().Is(reason::kImageFormatWrong));
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_TRUE(RawSource::Open(path_, 0, &cancel_).status().Is(reason::kImageFormatWrong));
}

TEST_F(RawSourceTest, FailsWithTheOffsetWhenTheFileIsCutOff) {
  Resize(kMiB);
  auto source = RawSource::Open(path_, kMiB, &cancel_);
  ASSERT_TRUE(source.ok());
  Resize(1000);
  ByteVector buffer(2000);
  ASSERT_TRUE((*source)->Submit(0, buffer).ok());
  const Status failure = (*source)->Await();
  ASSERT_TRUE(failure.Is(reason::kSourceReadFailed));
  EXPECT_NE(failure.message().find("at byte 1000"), std::string::npos);
}

TEST_F(RawSourceTest, StopsWhenCancelled) {
  Resize(kMiB);
  auto source = RawSource::Open(path_, kMiB, &cancel_);
  ASSERT_TRUE(source.ok());
  cancel_.Request();
  EXPECT_TRUE((*source)->ExtentAt(0).status().Is(reason::kCancelled));
}

}  // namespace
}  // namespace blockferry
