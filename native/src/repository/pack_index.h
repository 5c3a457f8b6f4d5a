// Which pack holds a name? A cache: the tables of the packs are the truth.
//
// What came last lies in a table in memory, the rest in immutable sorted files (index_file.h). A
// full table becomes a file, files of one size are merged, both on a thread of their own if asked
// for. A lookup in a file reads one page, of most names that it does not have none, so that memory
// does not grow with the number of names: 32 bytes for each pack do, 1 MiB for each TiB stored.
//
// A file that turns out to be damaged answers nothing any more; see IsWholeSince. Thread-safe, but
// only one thread at a time may refresh (ReadFiles, SetListed, AddPack, Settle).
#ifndef BLOCKFERRY_REPOSITORY_PACK_INDEX_H_
#define BLOCKFERRY_REPOSITORY_PACK_INDEX_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <shared_mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "repository/index_folder.h"
#include "repository/index_merge.h"
#include "repository/index_table.h"
#include "repository/pack_list.h"
#include "repository/pack_writer.h"

namespace blockferry {

struct RecordPlace {
  uint32_t pack = 0;  // Number of the pack in this process.
  uint32_t offset = 0;
  uint32_t stored_size = 0;
  RecordType type = RecordType::kChunk;
};

// What a listing of a folder of packs finds.
struct ListedPack {
  PackId id{};
  bool is_tombstoned = false;
};

struct IndexOptions {
  // Bytes: a quarter for tables, three eighths for directory pages, the rest for merging and packs.
  size_t memory = 0;
  // Otherwise files are written and merged by the calls below, and the order of all file calls
  // depends on them alone.
  bool in_background = false;
  bool read_only = false;
  std::string scratch_folder;  // For the files of an index that cannot be written into its folder.
};

class PackIndex {
 public:
  PackIndex(FileSystem& files, const std::string& repository_folder, const RepositoryId& repository,
            const IndexOptions& options);
  // Waits for a table that is being written, and gives a merge up.
  ~PackIndex();

  // A refresh is these, in this order. Takes notice of the index files that are there now.
  void ReadFiles();
  // The packs that are in their folder, named by the first byte of their ids, ascending. Those that
  // are not listed are lacking from now on and returned in `gone`; those whose tables have to be
  // read and added are returned in `unread`.
  void SetListed(std::byte folder, std::span<const ListedPack> listed,
                 std::vector<ListedPack>* unread, std::vector<PackId>* gone);
  // Adds a durable pack; `size` is the file's. A tombstone that a listing has found stays. May wait
  // until a table was written; fails when it cannot be, neither into the repository nor into
  // scratch.
  Result<uint32_t> AddPack(const ListedPack& listed, uint64_t size,
                           std::span<const PackEntry> entries);
  // The table of a pack that has to be read is damaged: its records are lacking.
  void SetLacking(const PackId& id);
  // Removes files that others make superfluous, and writes and merges what is worth it.
  void Settle();

  // The record there is known to be damaged: Find and Has pass it over, FindAll does not. False
  // when there are so many that the whole pack is passed over.
  bool MarkDamaged(uint32_t pack, uint32_t offset);
  // It was read and is whole. False when it was not known to be damaged.
  bool ClearDamaged(uint32_t pack, uint32_t offset);

  // A place that something new may refer to: in a pack that stays, and not known to be damaged.
  std::optional<RecordPlace> Find(RecordTypes types, const Digest& name) const;
  // Is there a place that is not known to be damaged, be it in a pack that is about to go?
  bool Has(RecordTypes types, const Digest& name) const;
  // Every place of the name; several when two sessions stored it at the same time.
  std::vector<RecordPlace> FindAll(RecordTypes types, const Digest& name) const;

  // An answer "lacking" is certain only if this is true after it for a mark taken before it.
  // Otherwise a file of the index was found to be damaged: refresh, and ask again.
  uint64_t whole_mark() const { return healed_count_; }
  bool IsWholeSince(uint64_t mark) const { return lost_count_ == mark; }

  // Of a pack that stays.
  std::optional<uint32_t> PackNumber(const PackId& id) const;
  PackId IdOf(uint32_t pack) const;
  bool IsUsable(uint32_t pack) const;

  // Without the lock: the thread that asks must not wait for a table that grows.
  uint64_t pack_count() const { return pack_count_; }
  uint64_t stored() const { return stored_; }
  uint64_t chunk_count() const { return chunk_count_; }
  // At least the number of distinct names.
  uint64_t entry_count() const;
  // The files that are in use.
  size_t file_count() const;
  // Waits until nothing is written or merged any more.
  void AwaitWork();

 private:
  using Lock = std::unique_lock<std::shared_mutex>;

  // Calls `visit` with each place in a usable pack, and how it stands, until it returns false. A
  // place may come twice.
  enum class Standing { kGood, kTombstoned, kDamaged };
  template <typename Visit>
  void ForEach(RecordTypes types, const Digest& name, Visit visit) const;
  Standing StandingOf(const IndexEntry& entry) const;
  void SetUsable(uint32_t number, bool usable);

  // The table is full. REQUIRES, here and below: the lock is held; it may be released meanwhile.
  Status MakeRoom(Lock& lock);
  void Freeze();
  void StartWork(Lock& lock);
  // Writes the frozen table, then merges what is to be merged.
  void Work();
  Status WriteTable(Lock& lock);
  Result<std::shared_ptr<IndexFile>> MakeTableFile(const IndexTable& table,
                                                   const std::vector<uint32_t>& numbers,
                                                   const std::vector<IndexPack>& packs);
  IndexFiles ChooseMerge() const;
  Status Merge(Lock& lock, const IndexFiles& files);
  // Called by a merge now and then, without the lock: may it go on?
  bool KeepOnMerging();

  void AddFile(std::shared_ptr<IndexFile> file);
  void DropFile(const IndexFile* file);
  void DropBadFiles();
  // Of files that are superfluous: they are dropped.
  std::vector<std::string> DropSuperfluousFiles();
  std::vector<IndexPack> Describe(const std::vector<uint32_t>& numbers) const;
  // Usable packs that no table and no file has any more have to be read again.
  void CountLost(const std::vector<uint32_t>& numbers);

  const IndexOptions options_;
  DirectoryBudget budget_;
  IndexFolder folder_;

  mutable std::shared_mutex mutex_;
  PackList packs_;
  std::unique_ptr<IndexTable> table_;
  std::unique_ptr<const IndexTable> frozen_;         // A full table that is being written, or null.
  std::shared_ptr<const IndexFiles> files_;          // Never changed, only replaced.
  std::set<std::pair<uint32_t, uint32_t>> damaged_;  // Pack and offset.

  // Of the thread that writes and merges.
  std::thread worker_;
  bool is_working_ = false;
  bool is_closing_ = false;
  bool is_refreshing_ = false;   // Packs of new files are not known to be there yet.
  bool is_merging_off_ = false;  // The last merge failed, and no table was written since.
  Status write_failure_;
  std::condition_variable_any work_changed_;

  // Of the thread that refreshes.
  bool has_read_files_ = false;
  std::set<std::string> passed_over_;  // Names of index files that are of no use.
  uint64_t refresh_mark_ = 0;

  mutable std::atomic<uint64_t> lost_count_ = 0;  // How often a part of the index was lost.
  std::atomic<uint64_t> healed_count_ = 0;        // The losses that refreshes made good.
  // Of the usable packs.
  std::atomic<uint64_t> pack_count_ = 0;
  std::atomic<uint64_t> stored_ = 0;
  std::atomic<uint64_t> chunk_count_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_PACK_INDEX_H_
