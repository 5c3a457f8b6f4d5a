// One run of one VM that writes a backup: it fences older runs of the same VM, fills packs, and
// commits by one rename.
//
// Lifecycle: Repository::OpenSession → OpenDisk for each disk, filled by DiskWriter → Commit, or
// Abort; the destructor aborts what was not committed. Thread-safe; disks may be written at once.
#ifndef BLOCKFERRY_REPOSITORY_SESSION_H_
#define BLOCKFERRY_REPOSITORY_SESSION_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "core/file.h"
#include "repository/checkpoint_files.h"
#include "repository/disk_writer.h"
#include "repository/manifest.h"
#include "repository/pack_writer.h"

namespace blockferry {

class Repository;

struct SessionOptions {
  std::string vm_pseudonym;
  std::string point_id;
  FencingToken token;
};

struct CommitOptions {
  std::string backup_id;
  std::string base_backup_id;  // Empty without base.
  std::vector<ManifestDisk> disks;
  ByteVector body;
  // Seconds of repository time for which nobody can remove the backup.
  uint64_t lock_duration = 0;
};

class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Repository& repository() { return *repository_; }

  // `base_root` is the root of the same disk in the base backup, if DiskWriter::Keep will be used
  // with it: of a base that was listed, and not removed, while this session was open; what was
  // listed before may have been collected. Continues at the checkpoint of the same point, disk,
  // size and base, if there is one. The session outlives the writer.
  Result<std::unique_ptr<DiskWriter>> OpenDisk(const std::string& disk_id, uint64_t size,
                                               const std::optional<Digest>& base_root);

  // Sets lacks[i] unless the chunk names[i] is in a durable pack, or in a pack that the commit of
  // this session waits for. Waits for no file that is written, and for at most a few pages of the
  // index that are read.
  void FindLacking(std::span<const Digest> names, std::span<bool> lacks);

  // Everything durable, then the manifest by one rename. When a backup of this point id is there
  // already, that one is returned: asking again after a lost answer is safe. RUN_FENCED when a
  // newer session of the VM took over; BASE_MISSING when the base is not in the repository any
  // more; CHUNK_MISSING when a pack that this session refers to vanished.
  Result<Manifest> Commit(const CommitOptions& options);

  // Removes the files of this session; durable packs and checkpoints stay. Idempotent.
  Status Abort();

 private:
  friend class DiskWriter;
  friend class Repository;

  struct Put {
    uint64_t ordinal = 0;      // Which of this session's packs holds it; 0: a durable pack.
    uint64_t stored_size = 0;  // Bytes appended; 0 when it was present.
  };
  // How far a disk is, and the youngest pack that this refers to.
  struct Checkpoint {
    std::string disk_id;
    ByteVector state;
    uint64_t ordinal = 0;
  };

  Session(Repository* repository, SessionOptions options);

  // Opening: the own folder is made before older sessions are looked for, so that of two that open
  // at once at least one sees the other.
  Status Open();
  Status Fence();
  Status RemoveLeftovers();

  // All take the lock, or fail as the session did.
  // Without value for a patch whose base is not present.
  Result<std::optional<Put>> PutRecord(const NewRecord& record);
  Result<std::optional<Put>> PutPresent(RecordTypes types, const Digest& name);
  // Writes the checkpoint as soon as all it refers to is durable. `soon`: does not wait for the
  // open pack to be full.
  Status SaveCheckpoint(Checkpoint checkpoint, bool soon);
  // All checkpoints that can be written are, so that a disk that is moved again goes on there.
  Status AwaitSealing();
  bool ReferTo(std::span<const PackId> pack_ids);

  // REQUIRES: the lock is held.
  Status CheckUsable() const;
  Result<std::optional<Put>> FindPresent(RecordTypes types, const Digest& name);
  Status StartPack();
  Result<uint64_t> AppendToPack(const NewRecord& record);
  // The open pack is full: it is sealed from now on. Waits for the one before it.
  Status BeginSealing();
  // Waits until the pack that is being sealed is durable, and writes what waited for that.
  Status EndSealing();
  // The same without waiting: does nothing while the sealer works.
  Status EndSealingWhenDone();
  // The pack that is being sealed as it ended, null without one.
  std::unique_ptr<PackWriter> JoinSealing();
  Status WriteCheckpoint(const std::string& disk_id, Bytes state);
  Status Fail(Status failure);
  std::optional<Manifest> FindCommitted(const std::vector<ListedManifest>& listed) const;
  Status CheckReferences(const CommitOptions& options, const std::vector<ListedManifest>& listed);
  Status WriteManifest(const Manifest& manifest);
  void RemoveFiles(bool committed);

  Status Fenced(const std::string& what) const;

  Repository* repository_;
  SessionOptions options_;
  std::string vm_folder_;  // Of all sessions of the VM.
  std::string name_;
  std::string folder_;  // Of this one, with all that it is about to publish.
  std::optional<CheckpointFiles> checkpoints_;  // Set by the constructor.

  // Lock order: this one, then names_mutex_, then the repository's.
  std::mutex mutex_;
  // Who changes the two packs or their names holds this one besides; never during a call of the
  // system, which takes as long as the storage does.
  std::shared_mutex names_mutex_;
  // The packs of this session count from 1; pack i is full when i <= filled_count_, and durable
  // when i <= sealed_count_. Between the two is at most one, sealing_.
  std::unique_ptr<PackWriter> pack_;
  std::unique_ptr<PackWriter> sealing_;
  std::thread sealer_;
  Status sealed_;  // What the sealer left; read after it was joined.
  std::atomic<bool> sealer_is_done_ = false;
  std::atomic<uint64_t> filled_count_ = 0;
  uint64_t sealed_count_ = 0;
  std::unordered_set<uint32_t> referenced_packs_;
  // Wait until what they refer to is durable.
  std::vector<Checkpoint> pending_checkpoints_;
  Status failure_;  // The first failed write: the session can only be aborted after it.
  bool ended_ = false;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_SESSION_H_
