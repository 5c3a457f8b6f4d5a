// Random ids that follow from a seed, so that a test that met a bug can be played again.
//
// The tests link the FillRandom of replayed_random_test.cc in place of the shipped one.
#ifndef BLOCKFERRY_CORE_REPLAYED_RANDOM_H_
#define BLOCKFERRY_CORE_REPLAYED_RANDOM_H_

#include <cstdint>

namespace blockferry {

// As long as one lives, FillRandom gives what follows from its seed, whichever thread calls.
class ReplayedRandom {
 public:
  explicit ReplayedRandom(uint64_t seed);
  ~ReplayedRandom();
  ReplayedRandom(const ReplayedRandom&) = delete;
  ReplayedRandom& operator=(const ReplayedRandom&) = delete;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_CORE_REPLAYED_RANDOM_H_
