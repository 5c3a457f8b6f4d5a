// A repository: a folder of packs and manifests, see docs/repository-format.md.
//
// Thread-safe. Sessions and readers must end before the repository does.
#ifndef BLOCKFERRY_REPOSITORY_REPOSITORY_H_
#define BLOCKFERRY_REPOSITORY_REPOSITORY_H_

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "repository/block_geometry.h"
#include "repository/chunk_reader.h"
#include "repository/manifest.h"
#include "repository/manifest_mark.h"
#include "repository/pack_files.h"
#include "repository/pack_format.h"
#include "repository/pack_index.h"
#include "repository/pack_reader.h"
#include "repository/repository_identity.h"
#include "repository/repository_keys.h"
#include "repository/repository_time.h"
#include "repository/session.h"

namespace blockferry {

struct RepositoryInfo {
  RepositoryId repository_id{};
  uint32_t format_version = 0;
  uint32_t block_size = 0;
  bool is_encrypted = false;
  uint64_t pack_count = 0;
  uint64_t stored = 0;  // Bytes of all pack files.
  uint64_t chunk_count = 0;
};

struct RepositoryLimits {
  uint64_t pack_size = pack_format::kTargetSize;  // Bytes at which a pack is sealed.
  size_t open_pack_count = 64;                    // Packs kept open for reading.
  // A full pack is sealed on a thread of its own while the session fills the next one, and files of
  // the index are written and merged on another. Otherwise the order of all file calls depends on
  // the calls of the session alone.
  bool seal_in_background = false;
  // Bytes that the index takes whatever the repository's size, but for 32 bytes for each pack.
  size_t index_memory = size_t{32} << 20;
  // Where a repository that cannot be written keeps what does not fit into these.
  std::string scratch_folder = "/var/tmp";
  // Bytes of the file that is given up when there is no room to remove backups; 0: none is made.
  uint64_t reserve_size = 0;
  Clock* clock = &SystemClock();
};

// A file of the repository that cannot be trusted; the rest goes on without it.
struct DamagedFile {
  std::string path;
  Status damage;
};

class Repository : public ChunkReader {
 public:
  // Makes a repository in a folder that is missing or empty; encrypted when there is a secret,
  // which gets the first key slot.
  static Result<RepositoryInfo> Create(FileSystem& files, const std::string& folder,
                                       const Secret* secret = nullptr,
                                       Clock& clock = SystemClock());
  // What a collection needs on a full file system, unless it is there. REPOSITORY_FULL.
  Status MakeReserve();
  // False when there was none.
  bool ReleaseReserve();
  // REPOSITORY_MISSING, REPOSITORY_TOO_NEW, REPOSITORY_DAMAGED, KEY_MISSING (it is encrypted and
  // there is no secret), KEY_WRONG, or a file's reason.
  static Result<std::unique_ptr<Repository>> Open(FileSystem& files, const std::string& folder,
                                                  bool read_only,
                                                  const RepositoryLimits& limits = {},
                                                  const Secret* secret = nullptr);
  // An encrypted one without a key; another as ever. It can be collected, says who it is, and takes
  // all that only marks files; what needs a key is KEY_MISSING. What is read is proven by the
  // digests that need no key, so whoever can write into the folder can mislead a collection, as
  // they could delete files.
  static Result<std::unique_ptr<Repository>> OpenWithoutKey(FileSystem& files,
                                                            const std::string& folder,
                                                            bool read_only,
                                                            const RepositoryLimits& limits = {});
  // Who the repository in `folder` is, as far as that is in clear.
  static Result<RepositoryIdentity> ReadIdentity(FileSystem& files, const std::string& folder);
  ~Repository() override;

  RepositoryInfo info();
  // REQUIRES: CheckKey().ok().
  const Naming& naming() const { return *naming_; }
  // KEY_MISSING when it was opened without its key.
  Status CheckKey() const;
  // Null when the repository is not encrypted.
  const Digest* record_key() const { return record_key_ ? &*record_key_ : nullptr; }
  // Packs whose table cannot be read: their chunks count as lacking.
  std::vector<DamagedFile> damaged_packs();

  // The next incarnation, by exclusive create: no two callers get the same one.
  Result<uint64_t> DrawIncarnation();

  Result<std::unique_ptr<Session>> OpenSession(const SessionOptions& options);

  // Manifests of one VM, or of all; ascending by VM and sequence.
  Result<std::vector<ListedManifest>> ListManifests(const std::optional<std::string>& vm_pseudonym);

  // A backup that is removed stays for the undo window, in which it can be had back; the next
  // collection after that gives its space free. Each of these is durable when it returns.
  // BACKUP_NOT_FOUND, BACKUP_HELD, BACKUP_LOCKED. What was asked for already is fine.
  Status RemoveBackup(const std::string& vm_pseudonym, const std::string& backup_id);
  // BACKUP_NOT_FOUND when its undo window is over.
  Status UndeleteBackup(const std::string& vm_pseudonym, const std::string& backup_id);
  // Nobody removes a backup that is held, until it is released. BACKUP_NOT_FOUND when it is
  // removed.
  Status HoldBackup(const std::string& vm_pseudonym, const std::string& backup_id);
  Status ReleaseBackup(const std::string& vm_pseudonym, const std::string& backup_id);

  // Sessions that are open or were left behind, as "<VM pseudonym>/<writer name>".
  Result<std::vector<std::string>> ListOpenSessions();

  // See repository_time.h.
  Result<RepositoryTime> AdvanceTime(bool confirmed);

  // Takes notice of packs that other processes added or removed. Call it before a restore or a
  // verification; a session does it when it opens.
  Status Refresh();

  // Is the chunk in a durable pack that stays, and not known to be damaged? Right after a file of
  // the index was found to be damaged it may say no of one that is: it is stored again then.
  bool Has(const Digest& name);

  Status ReadChunk(const Digest& name, MutableBytes plain, Proof proof,
                   uint64_t* stored_size) override;
  // Fills `plain` with the whole chunk behind a name: of a patch, what it is laid over. Without
  // value when it cannot be read, for whatever reason: then nothing can be laid over it.
  std::optional<BaseChunk> ReadBase(const Digest& name, MutableBytes plain);
  Result<size_t> ReadNode(const Digest& name, MutableBytes buffer) override;

 private:
  friend class Session;
  friend class Collector;
  friend class Expiry;
  friend class PackCopier;
  Repository(FileSystem& files, std::string folder, bool read_only, const RepositoryId& id,
             const RepositoryKeys* keys, bool is_encrypted, const RepositoryLimits& limits);
  struct ReadOptions {
    RecordTypes types;
    bool size_is_exact = true;  // The plain bytes must fill the buffer exactly, or at most.
    Proof proof = Proof::kPlain;
  };
  Result<size_t> ReadRecord(const ReadOptions& options, const Digest& name, MutableBytes plain,
                            uint64_t* stored_size);
  Status ReadPlace(const ReadOptions& options, const Digest& name, const RecordPlace& place,
                   MutableBytes* plain, uint64_t* stored_size);
  // Decodes what is there, without a look at its name.
  Status ReadWhole(File& file, const RecordRequest& request, MutableBytes* plain);
  Status ReadPatched(File& file, const RecordRequest& request, MutableBytes plain,
                     uint64_t* stored_size);
  Status Lacking(RecordTypes types, const Digest& name);
  Status MarkRemoved(const std::string& vm_pseudonym, const std::string& backup_id);
  Status SyncManifests(const std::string& vm_pseudonym);
  Result<ListedManifest> FindManifest(const std::string& vm_pseudonym, const std::string& backup_id,
                                      std::string_view doing);
  Result<ManifestMark> SetMark(const ListedManifest& listed, ManifestMark::Kind kind,
                               uint64_t time);
  // Those that are gone already are no failure.
  Status RemoveMarks(const std::vector<ManifestMark>& marks);
  Status RefreshFolder(std::byte number);
  Status ReadTable(const std::string& path, const ListedPack& listed);
  Result<size_t> ReadAnyPlace(const ReadOptions& options, const Digest& name, MutableBytes plain,
                              uint64_t* stored_size);
  // Is it in a durable pack, be it one that is about to go? Reads the tables of packs if the index
  // cannot be sure.
  Result<bool> IsPresent(RecordTypes types, const Digest& name);
  // A pack that a session of this process has sealed.
  Result<uint32_t> AddSealedPack(const PackWriter& pack);
  Status CheckWritable(std::string_view doing) const;

  std::string Path(std::string_view inside) const;
  std::string PackFolder(const PackId& id) const;
  std::string PackPath(const PackId& id) const;
  std::string ManifestFolder(std::string_view vm_pseudonym) const;

  FileSystem& files_;
  std::string folder_;
  bool read_only_;
  RepositoryId id_;
  bool is_encrypted_;
  std::optional<Naming> naming_;  // Absent without a key.
  std::optional<Digest> record_key_;
  RepositoryLimits limits_;
  PackIndex index_;
  PackFiles pack_files_;

  // Held while packs are listed or added, so that none is added twice.
  std::mutex refresh_mutex_;
  std::mutex damaged_mutex_;
  std::map<std::string, Status> damaged_;  // By path.
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_REPOSITORY_H_
