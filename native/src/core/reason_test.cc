#include "core/reason.h"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <string>

namespace blockferry {
namespace {

std::set<std::string> Matches(const std::string& path, const std::regex& pattern) {
  std::ifstream file(path);
  std::set<std::string> found;
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (std::regex_search(line, match, pattern)) found.insert(match[1]);
  }
  return found;
}

TEST(Reason, NamesOnlyReasonsOfTheProto) {
  std::string root = BLOCKFERRY_ROOT;
  std::set<std::string> proto = Matches(root + "/proto/blockferry/error/v1/error.proto",
                                        std::regex("^  REASON_([A-Z_]+) = [1-9]"));
  std::set<std::string> header =
      Matches(root + "/native/src/core/reason.h", std::regex("= \"([A-Z_]+)\";"));
  ASSERT_FALSE(header.empty());
  for (const std::string& reason : header) EXPECT_TRUE(proto.contains(reason)) << reason;
}

}  // namespace
}  // namespace blockferry
