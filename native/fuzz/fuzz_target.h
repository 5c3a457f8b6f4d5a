// Decoders of bytes that nobody vouches for, each as a function of arbitrary bytes. libFuzzer feeds
// them (cmake -DBLOCKFERRY_FUZZ=ON, needs clang); a unit test runs them over the checked-in
// corpora.
//
// What a digest or a code protects would never be reached by random changes, so each target makes
// them right again where the first byte of its input says so; the other bytes are the foreign file.
// A target returns normally whatever it is fed: anything else is a finding.
#ifndef BLOCKFERRY_FUZZ_FUZZ_TARGET_H_
#define BLOCKFERRY_FUZZ_FUZZ_TARGET_H_

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/bytes.h"

namespace blockferry::fuzz {

struct Target {
  std::string_view name;  // Also of its folder in native/fuzz/corpus.
  void (*run)(Bytes input);
  // Inputs made by the product's own writers, to start from.
  std::vector<ByteVector> (*seeds)();
};

// The table of a pack, and every record that it names.
extern const Target kPack;
extern const Target kMapNode;
extern const Target kManifest;
// A file of the folder `keys`.
extern const Target kKeySlot;
// A file of the folder `index`.
extern const Target kIndex;
// Two answers to one block status request.
extern const Target kExtentAnswer;

inline const Target* const kTargets[] = {&kPack,    &kMapNode, &kManifest,
                                         &kKeySlot, &kIndex,   &kExtentAnswer};

// Null when there is no target of that name.
inline const Target* FindTarget(std::string_view name) {
  for (const Target* target : kTargets) {
    if (target->name == name) return target;
  }
  return nullptr;
}

// An input: the byte that says what is made right, and the file.
inline ByteVector InputOf(uint8_t first, Bytes file) {
  ByteVector input(1 + file.size(), static_cast<std::byte>(first));
  std::copy(file.begin(), file.end(), input.begin() + 1);
  return input;
}

}  // namespace blockferry::fuzz

#endif  // BLOCKFERRY_FUZZ_FUZZ_TARGET_H_
