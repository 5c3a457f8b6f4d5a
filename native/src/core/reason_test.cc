#include "core/reason.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

namespace blockferry {
namespace {

// The upper-case words that follow `before` in the file's lines.
std::set<std::string> WordsAfter(const std::string& path, const std::string& before) {
  std::ifstream file(path);
  std::set<std::string> found;
  for (std::string line; std::getline(file, line);) {
    size_t at = line.find(before);
    if (at == std::string::npos) continue;
    at += before.size();
    size_t end = line.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", at);
    found.insert(line.substr(at, end - at));
  }
  return found;
}

TEST(Reason, NamesOnlyReasonsOfTheProto) {
  std::string root = BLOCKFERRY_ROOT;
  std::set<std::string> proto =
      WordsAfter(root + "/proto/blockferry/error/v1/error.proto", "  REASON_");
  std::set<std::string> header = WordsAfter(root + "/native/src/core/reason.h", "= \"");
  ASSERT_FALSE(header.empty());
  for (const std::string& reason : header) EXPECT_TRUE(proto.contains(reason)) << reason;
}

}  // namespace
}  // namespace blockferry
