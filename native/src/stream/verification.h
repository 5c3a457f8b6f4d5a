// Proves disks of backups: every node of a map and every block it names is read, decoded and
// compared with its name, so an undamaged disk has the root that was asked for.
//
// Damage does not stop it: what is damaged is collected, in bytes of the disk. What several disks
// share is proven once for all of them.
#ifndef BLOCKFERRY_STREAM_VERIFICATION_H_
#define BLOCKFERRY_STREAM_VERIFICATION_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/rate_limit.h"
#include "repository/chunk_reader.h"
#include "repository/name_set.h"
#include "stream/restore_disk.h"

namespace blockferry {

// Neighbouring bytes of a disk that cannot be had any more, and why the first of them cannot.
struct DamagedRange {
  uint64_t offset = 0;
  uint64_t size = 0;
  Status damage;  // BLOCK_CORRUPT or CHUNK_MISSING.
};

struct DamageReport {
  std::vector<DamagedRange> ranges;  // By offset; of a disk that has many, kDamagedRangesMax.
  uint64_t damaged_bytes = 0;        // Of all of them.
};

inline constexpr size_t kDamagedRangesMax = 1000;

struct VerificationLimits {
  uint64_t bytes_per_second = 0;            // Stored bytes; 0: no limit.
  size_t proven_memory = size_t{64} << 20;  // Names beyond it are proven again.
};

class Verification {
 public:
  // `chunks` outlives it; chunk_count is about how many there are.
  Verification(ChunkReader* chunks, uint64_t chunk_count, const VerificationLimits& limits = {});

  // Any failure but damage ends it, for example REPOSITORY_UNREACHABLE. Called by any thread.
  Result<DamageReport> VerifyDisk(const StoredDisk& disk, const Cancel* cancel, Progress* progress);

 private:
  friend class DiskVerifier;
  bool IsProven(const Digest& name);
  void SetProven(const Digest& name);
  // Null when it is not known to be damaged.
  const Status* DamageOf(const Digest& name);
  void SetDamaged(const Digest& name, const Status& damage);

  ChunkReader* chunks_;
  RateLimit rate_limit_;
  std::mutex mutex_;
  NameSet proven_;
  std::map<Digest, Status> damaged_;  // Never erased from, so its values stay where they are.
};

}  // namespace blockferry

#endif  // BLOCKFERRY_STREAM_VERIFICATION_H_
