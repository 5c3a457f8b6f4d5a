// Collection: gives back the space of what no backup needs.
//
// A collector changes the repository only by renames into or out of a folder of its own, and each
// new one renames the folders of the older ones away first: whoever lost its folder changes nothing
// any more, wherever it was stopped. A pack goes in two steps. First a tombstone is laid beside it:
// sessions that open from then on do not refer to it. When all sessions that were open then have
// ended, everything is marked again, and a pack that still nothing refers to is deleted. See
// docs/repository-format.md.
#ifndef BLOCKFERRY_REPOSITORY_COLLECTOR_H_
#define BLOCKFERRY_REPOSITORY_COLLECTOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "repository/manifest.h"
#include "repository/repository.h"

namespace blockferry {

struct CollectOptions {
  FencingToken token;
  // Seconds of repository time for which a removed backup can be had back.
  uint64_t undo_window = uint64_t{7} * 24 * 3600;
  // Sessions that show no sign of life any more, as Repository::ListOpenSessions names them: they
  // are fenced.
  std::vector<std::string> dead_sessions;
  // Bytes for marking.
  size_t memory = size_t{256} << 20;
  // Of records that are written anew; 0: no limit.
  uint64_t bytes_per_second = 0;
  // Says what would be done, changes nothing.
  bool dry_run = false;
};

struct CollectReport {
  // Backups that are gone for good, as "<VM pseudonym>/<backup id>".
  std::vector<std::string> dropped_backups;
  // Bytes of all packs that stay, and of the records in them that are needed.
  uint64_t stored = 0;
  uint64_t live = 0;
  struct Packs {
    uint64_t count = 0;
    uint64_t size = 0;  // Bytes.
  };
  Packs deleted;
  Packs tombstoned;  // To be deleted by a later collection, or by this one a moment later.
  Packs copied;      // Mostly dead ones whose rest was written anew; `size` is that of the rest.
  Packs spared;      // Tombstoned ones that something refers to again.
  Packs waiting;     // Tombstoned ones that sessions may still refer to.
  // The sessions that are waited for.
  std::vector<std::string> waits_for;
};

// RUN_FENCED when a newer collector took over, COLLECTION_BLOCKED when backups cannot be read,
// CANCELLED. What was done until then stays done. Progress: size_bytes are those of all packs,
// position_bytes of those whose records were looked at, stored_bytes what was copied.
Result<CollectReport> Collect(Repository* repository, const CollectOptions& options,
                              const Cancel* cancel, Progress* progress);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_COLLECTOR_H_
