// A program of libFuzzer for the target that BLOCKFERRY_FUZZ_TARGET names. With BLOCKFERRY_SEEDS
// set to a folder it first writes the target's seeds there.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "fuzz_target.h"

namespace {

const blockferry::fuzz::Target& target = blockferry::fuzz::BLOCKFERRY_FUZZ_TARGET;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("BLOCKFERRY_SEEDS");
  if (folder == nullptr) return 0;
  size_t number = 0;
  for (const blockferry::ByteVector& seed : target.seeds()) {
    std::ofstream file(std::string(folder) + "/seed" + std::to_string(number++), std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.data()),
               static_cast<std::streamsize>(seed.size()));
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target.run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
