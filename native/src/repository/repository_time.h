// The time by which a repository lets things expire: seconds since 1970 that only go forward, and
// only as far as time was seen to pass. Setting a clock moves nothing.
//
// While one machine runs, the seconds since its start count. From one start to the next, or from
// one machine to another, the wall clock is believed for up to kBelievedGap; what it says beyond
// that counts once somebody has confirmed it. So after a clock that jumped or a long downtime
// things expire later, never sooner.
#ifndef BLOCKFERRY_REPOSITORY_REPOSITORY_TIME_H_
#define BLOCKFERRY_REPOSITORY_REPOSITORY_TIME_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/clock.h"
#include "core/file.h"

namespace blockferry {

inline constexpr uint64_t kAheadMax = uint64_t{365} * 24 * 3600;

struct RepositoryTime {
  uint64_t now = 0;
  // How far the wall clock is ahead; what it says is not believed. 0 when it is behind.
  uint64_t behind_by = 0;
  // What begins now begins then: nothing that lasts ends sooner when somebody confirms the clock. A
  // clock that is ahead by more than a year is taken for wrong.
  uint64_t latest() const { return now + std::min(behind_by, kAheadMax); }
};

inline constexpr uint64_t kBelievedGap = uint64_t{3} * 24 * 3600;

// Writes the first time of a repository that is being created: what the wall clock says.
Status WriteFirstTime(FileSystem& files, const std::string& folder, Clock& clock);

// Notes that time has passed, durably, and says what it is now. `confirmed` believes the wall clock
// whatever it says, but never backwards. `folder` is the repository's. A file of the time that is
// damaged or missing is REPOSITORY_DAMAGED, unless the clock is confirmed.
Result<RepositoryTime> AdvanceTime(FileSystem& files, const std::string& folder, Clock& clock,
                                   bool confirmed);

// The same without a note of it.
Result<RepositoryTime> ReadTime(FileSystem& files, const std::string& folder, Clock& clock);

// REPOSITORY_DAMAGED unless the file of the time holds one.
Status CheckTimeFile(FileSystem& files, const std::string& folder);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_REPOSITORY_TIME_H_
