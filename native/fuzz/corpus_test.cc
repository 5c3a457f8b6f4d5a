// The fuzz targets over their checked-in corpora: what was a finding once stays mended, also where
// there is no clang.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "fuzz_target.h"

namespace blockferry::fuzz {
namespace {

namespace fs = std::filesystem;

fs::path CorpusOf(const Target& target) {
  return fs::path(BLOCKFERRY_ROOT) / "native/fuzz/corpus" / target.name;
}

ByteVector Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const Bytes bytes = BytesOf(text);
  return {bytes.begin(), bytes.end()};
}

TEST(Fuzz, EveryTargetTakesItsCorpus) {
  for (const Target* target : kTargets) {
    size_t count = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(CorpusOf(*target))) {
      SCOPED_TRACE(entry.path());
      target->run(Read(entry.path()));
      ++count;
    }
    EXPECT_GT(count, 0u) << target->name;
  }
}

// A few thousand changes on every run of the tests; libFuzzer does ten millions and more.
TEST(Fuzz, EveryTargetTakesChangedSeeds) {
  const char* given = std::getenv("SEED");
  const unsigned seed = given == nullptr ? 2026 : static_cast<unsigned>(std::atoi(given));
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  for (const Target* target : kTargets) {
    for (const ByteVector& whole : target->seeds()) {
      target->run(whole);
      for (int round = 0; round < 500; ++round) {
        ByteVector changed = whole;
        changed.resize(1 + random() % changed.size());
        if (round % 2 == 0) changed = whole;
        for (unsigned i = 0; i <= random() % 4; ++i) {
          changed[random() % changed.size()] = static_cast<std::byte>(random());
        }
        target->run(changed);
      }
    }
  }
}

}  // namespace
}  // namespace blockferry::fuzz
