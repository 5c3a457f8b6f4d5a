#include "repository/collector.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/endian.h"
#include "repository/checkpoint_files.h"
#include "repository/damage_mark.h"
#include "repository/expiry.h"
#include "repository/mark.h"
#include "repository/pack_copier.h"
#include "repository/pack_format.h"
#include "repository/repository_format.h"
#include "repository/waiting_list.h"
#include "repository/writer_folder.h"
#include "repository/writer_name.h"

namespace blockferry {

using namespace repository_format;

namespace {

// A pack of whose records less than this share is needed is written anew.
constexpr double kLiveShareMin = 0.5;

bool IsGoneAlready(const Status& status) { return status.Is(reason::kNotFound); }

std::string AdviceOn(const ListedManifest& damaged) {
  if (damaged.backup_id.empty()) return "move it out of the repository";
  return damaged.is_corrupt() ? "remove the backup" : "find out why it cannot be read";
}

}  // namespace

class Collector {
 public:
  Collector(Repository* repository, const CollectOptions& options, const Cancel* cancel,
            Progress* progress)
      : repository_(*repository),
        files_(repository->files_),
        options_(options),
        cancel_(cancel),
        progress_(*progress),
        name_(MakeWriterName(options.token)),
        folder_(repository->Path(std::string(kCollectorsFolder) + "/" + name_)),
        expiry_(repository, options.undo_window, folder_) {}

  Result<CollectReport> Run() {
    RETURN_IF_ERROR(repository_.CheckWritable("collect"));
    if (options_.dry_run) {
      RETURN_IF_ERROR(expiry_.ReadTime());
      RETURN_IF_ERROR(Look());
      RETURN_IF_ERROR(Mark());
      Foresee();
      return report_;
    }
    RETURN_IF_ERROR(Claim());
    Status done = Work();
    const Status ended = RemoveOwnFolder();
    RETURN_IF_ERROR(done);
    RETURN_IF_ERROR(ended);
    RETURN_IF_ERROR(repository_.Refresh());
    return report_;
  }

  // Also when it failed afterwards.
  const std::vector<std::string>& dropped_backups() const { return report_.dropped_backups; }

 private:
  Status Work() {
    RETURN_IF_ERROR(FenceDeadSessions());
    ASSIGN_OR_RETURN(report_.dropped_backups, expiry_.DropExpired(cancel_));
    for (int round = 0;; ++round) {
      RETURN_IF_ERROR(Look());
      RETURN_IF_ERROR(Mark());
      RETURN_IF_ERROR(DeleteRipe());
      if (round == 0) RETURN_IF_ERROR(CopySparse());
      ASSIGN_OR_RETURN(const bool goes_on, Publish());
      // With no session open then, what was just tombstoned can go at once.
      if (!goes_on || round > 0) return {};
    }
  }

  // ---- Who may collect

  // The folder is made before others are looked for: of two that start at once at least one sees
  // the other.
  Status Claim() {
    RETURN_IF_ERROR(files_.CreateFolder(folder_));
    const std::string all = ParentOf(folder_);
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(all));
    for (const FolderEntry& entry : entries) {
      if (!IsWriterFolder(entry) || entry.name == name_) continue;
      if (entry.name.substr(0, kTokenTextSize) > name_.substr(0, kTokenTextSize)) {
        static_cast<void>(RemoveOwnFolder());
        return Fenced();
      }
      RETURN_IF_ERROR(FenceWriter(files_, all, entry.name, name_));
    }
    RETURN_IF_ERROR(files_.SyncFolder(all));
    // What a collector that is fenced had taken away is deleted in its place: it had the right to.
    return RemoveFencedWriters(files_, all);
  }

  Status RemoveOwnFolder() {
    RETURN_IF_ERROR(RemoveWriterFolder(files_, folder_));
    return files_.SyncFolder(ParentOf(folder_));
  }

  Status Fenced() const {
    return Status(reason::kRunFenced,
                  "collect repository " + repository_.folder_ + " with token " +
                      TokenText(options_.token) +
                      ": a newer collector took over; this one changes nothing any more",
                  {{"token", TokenText(options_.token)}});
  }

  // What a newer collector takes away is no failure of the storage.
  Status FencedOr(const Status& failure) {
    const bool is_fenced = !options_.dry_run && IsGoneAlready(files_.List(folder_).status());
    return is_fenced ? Fenced() : failure;
  }

  // A rename into or out of the own folder. False when what was to be moved is gone; RUN_FENCED
  // when the own folder is.
  Result<bool> Move(const std::string& from, const std::string& to) {
    const Status moved = files_.RenameNoReplace(from, to);
    if (moved.ok()) return true;
    if (!IsGoneAlready(moved)) return moved;
    const Result<std::vector<FolderEntry>> own = files_.List(folder_);
    if (IsGoneAlready(own.status())) return Fenced();
    RETURN_IF_ERROR(own);
    return false;
  }

  std::string OwnPath(const std::string& file) const { return folder_ + "/" + file; }

  // A new file in the own folder.
  Result<std::unique_ptr<File>> CreateOwn(const std::string& file) {
    Result<std::unique_ptr<File>> created = files_.CreateExclusive(OwnPath(file));
    if (IsGoneAlready(created.status())) return Fenced();
    return created;
  }

  // ---- Sessions that are dead

  Status FenceDeadSessions() {
    for (const std::string& session : options_.dead_sessions) {
      const size_t slash = session.find('/');
      const bool is_session = slash != std::string::npos && IsPseudonym(session.substr(0, slash)) &&
                              WriterOf(session.substr(slash + 1)) == session.substr(slash + 1);
      if (!is_session) {
        return Status(reason::kArgumentInvalid,
                      "collect: dead_sessions holds \"" + session +
                          "\", which is no name of a session; name those that are listed",
                      {{"field", "dead_sessions"}, {"value", session}});
      }
      const std::string folder =
          repository_.Path(std::string(kSessionsFolder) + "/" + session.substr(0, slash));
      RETURN_IF_ERROR(FenceWriter(files_, folder, session.substr(slash + 1), name_));
      const Status removed = RemoveFencedWriters(files_, folder);
      if (!IsGoneAlready(removed)) RETURN_IF_ERROR(removed);
    }
    return {};
  }

  // ---- What there is. In this order: packs, sessions, manifests, and the packs again. Who wrote a
  // pack that is seen first had opened its session before; a session that has ended meanwhile has
  // left its manifest; and the packs that such a manifest leads to are all seen then.

  Status Look() {
    packs_.clear();
    batches_.clear();
    known_.clear();
    RETURN_IF_ERROR(LookAtPacks(false));
    RETURN_IF_ERROR(LookAtSessions());
    RETURN_IF_ERROR(LookAtBatches());
    ASSIGN_OR_RETURN(manifests_, repository_.ListManifests(std::nullopt));
    for (const MarkedPack& pack : packs_) known_.insert(pack.id);
    RETURN_IF_ERROR(LookAtPacks(true));
    return repository_.Refresh();
  }

  Status LookAtPacks(bool is_again) {
    for (int i = 0; i < 256; ++i) {
      RETURN_IF_ERROR(LookAtFolder(static_cast<std::byte>(i), is_again));
    }
    return {};
  }

  static bool HasPack(const std::vector<FolderEntry>& entries, const PackId& id) {
    const std::string name = HexOf(id) + kPackSuffix;
    return std::any_of(entries.begin(), entries.end(),
                       [&](const FolderEntry& entry) { return entry.name == name; });
  }

  Status LookAtFolder(std::byte number, bool is_again) {
    PackId any{number};
    const std::string folder = repository_.PackFolder(any);
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(folder));
    // A copy that somebody renamed into place and did not sync may vanish in a power cut: nothing
    // may be deleted because it is there.
    if (!options_.dry_run) RETURN_IF_ERROR(files_.SyncFolder(folder));
    std::optional<PackFileName> tombstone;
    for (const FolderEntry& entry : entries) {
      const std::optional<DamageMark> mark = ParseDamageMark(entry.name);
      if (mark && !options_.dry_run && !HasPack(entries, mark->id)) {
        RemoveDamageMark(files_, folder, *mark);
      }
      std::optional<PackFileName> name = ParsePackFileName(entry.name);
      if (!name || name->id[0] != number) continue;
      if (known_.contains(name->id)) continue;
      if (name->kind != PackFileName::Kind::kPack) {
        batches_[name->batch].tombstones.push_back(*name);
        tombstone = std::move(name);
        continue;
      }
      MarkedPack pack;
      pack.id = name->id;
      pack.is_new = is_again;
      if (tombstone && tombstone->id == name->id) pack.tombstone = tombstone;
      packs_.push_back(std::move(pack));
    }
    return {};
  }

  Status LookAtSessions() {
    ASSIGN_OR_RETURN(const std::vector<std::string> open, repository_.ListOpenSessions());
    open_sessions_ = std::set<std::string>(open.begin(), open.end());
    open_writers_.clear();
    for (const std::string& session : open) open_writers_.insert(FileNameOf(session));
    checkpointed_.clear();
    const std::string sessions = repository_.Path(kSessionsFolder);
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> vms, files_.List(sessions));
    for (const FolderEntry& vm : vms) {
      if (!vm.is_folder || !IsPseudonym(vm.name)) continue;
      const std::string folder = sessions + "/" + vm.name;
      // A session that somebody fenced may be back after a power cut, unless this is synced.
      if (!options_.dry_run) RETURN_IF_ERROR(files_.SyncFolder(folder));
      ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(folder));
      for (const FolderEntry& entry : entries) {
        if (!CheckpointFiles::IsCheckpoint(entry.name)) continue;
        const std::optional<CheckpointFile> checkpoint =
            CheckpointFiles::Read(files_, folder + "/" + entry.name);
        if (!checkpoint) continue;
        checkpointed_.insert(checkpoint->pack_ids.begin(), checkpoint->pack_ids.end());
      }
    }
    return {};
  }

  // Whose sessions have all ended is ripe.
  Status LookAtBatches() {
    report_.waits_for.clear();
    std::set<std::string> waits_for;
    for (auto& [id, batch] : batches_) {
      std::optional<std::vector<std::string>> sessions = ReadWaitingList(files_, WaitsPath(id));
      if (!sessions) {
        // Who published it ended before it could say whom to wait for.
        sessions.emplace(open_sessions_.begin(), open_sessions_.end());
        if (!options_.dry_run) RETURN_IF_ERROR(WriteWaits(id, *sessions));
      }
      batch.is_ripe = true;
      for (const std::string& session : *sessions) {
        if (!open_sessions_.contains(session)) continue;
        batch.is_ripe = false;
        waits_for.insert(session);
      }
    }
    report_.waits_for.assign(waits_for.begin(), waits_for.end());
    return options_.dry_run ? Status() : RemoveOldWaits();
  }

  // Of batches that have no tombstone any more.
  Status RemoveOldWaits() {
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(ParentOf(folder_)));
    for (const FolderEntry& entry : entries) {
      if (!entry.name.ends_with(kSessionsSuffix)) continue;
      const std::string batch = entry.name.substr(0, entry.name.find('.'));
      if (batches_.contains(batch)) continue;
      RETURN_IF_ERROR(RemoveIfThere(files_, ParentOf(folder_) + "/" + entry.name));
    }
    return {};
  }

  std::string WaitsPath(const std::string& batch) const {
    return ParentOf(folder_) + "/" + batch + kSessionsSuffix;
  }

  Status WriteWaits(const std::string& batch, const std::vector<std::string>& sessions) {
    const std::string file = batch + kSessionsSuffix;
    // A damaged one is in the way.
    RETURN_IF_ERROR(RemoveIfThere(files_, WaitsPath(batch)));
    {
      ASSIGN_OR_RETURN(const std::unique_ptr<File> list, CreateOwn(file));
      RETURN_IF_ERROR(list->Append(EncodeWaitingList(sessions)));
      RETURN_IF_ERROR(list->Sync());
    }
    RETURN_IF_ERROR(Move(OwnPath(file), WaitsPath(batch)));
    return files_.SyncFolder(ParentOf(folder_));
  }

  // ---- What of it is needed

  Status Mark() {
    MarkOptions mark;
    mark.memory = options_.memory;
    for (const ListedManifest& one : manifests_) {
      if (one.is_dropped) continue;
      if (options_.dry_run && expiry_.IsOver(one)) {
        report_.dropped_backups.push_back(Expiry::BackupNameOf(one));
        continue;
      }
      if (!one.manifest) {
        return Status(reason::kCollectionBlocked,
                      "collect repository " + repository_.folder_ + ": " + one.damage.message() +
                          "; nothing is deleted as long as it is not known what that backup "
                          "needs: bring the file back, or " +
                          AdviceOn(one),
                      {{"path", one.path}});
      }
      for (const ManifestDisk& disk : one.manifest->disks) {
        if (!disk.root) continue;
        mark.roots.push_back({*disk.root, MapLevelCount(BlockCountOf(disk.size)),
                              "disk " + disk.disk_id + " of backup " + one.backup_id});
      }
    }
    mark.name_count = repository_.index_.entry_count();
    mark.looked_at = &progress_.position_bytes;
    progress_.size_bytes.Set(repository_.index_.stored());
    const auto read_table = [this](const PackId& id) {
      return ReadPackTable(files_, repository_.PackPath(id), repository_.id_, id);
    };
    if (Status marked = MarkPacks(mark, &repository_, read_table, cancel_, &packs_); !marked.ok()) {
      return FencedOr(marked);
    }
    report_.stored = report_.live = 0;
    for (const MarkedPack& pack : packs_) {
      if (pack.tombstone) continue;
      report_.stored += pack.size;
      report_.live += pack.live_size;
    }
    return {};
  }

  // Packs that nothing refers to, and that no session may be about to refer to.
  bool IsDead(const MarkedPack& pack) const {
    return !pack.tombstone && !pack.is_live() && !IsInUse(pack);
  }
  // Packs of which so little is needed that the rest is worth a copy.
  bool IsSparse(const MarkedPack& pack) const {
    return !pack.tombstone && pack.is_live() && !IsInUse(pack) &&
           static_cast<double>(pack.live_size) <
               kLiveShareMin * static_cast<double>(pack.record_size);
  }
  // A session that is open has written it, or one that will be taken up again refers to it.
  bool IsInUse(const MarkedPack& pack) const {
    return pack.is_new || open_writers_.contains(pack.writer) || checkpointed_.contains(pack.id);
  }

  // A pack with a tombstone that is referred to all the same, by a session that was open before the
  // tombstone was.
  static bool IsNeeded(const MarkedPack& pack) {
    return pack.tombstone->kind == PackFileName::Kind::kMoved ? pack.has_last_copy : pack.is_live();
  }

  static void Add(const MarkedPack& pack, CollectReport::Packs* packs) {
    ++packs->count;
    packs->size += pack.size;
  }

  void Foresee() {
    for (const MarkedPack& pack : packs_) {
      if (IsDead(pack)) Add(pack, &report_.tombstoned);
      if (IsSparse(pack)) {
        Add(pack, &report_.tombstoned);
        ++report_.copied.count;
        report_.copied.size += pack.live_size;
      }
      if (!pack.tombstone) continue;
      const bool is_ripe = batches_.at(pack.tombstone->batch).is_ripe;
      Add(pack, IsNeeded(pack) ? &report_.spared : is_ripe ? &report_.deleted : &report_.waiting);
    }
  }

  // ---- Deleting

  Status DeleteRipe() {
    report_.waiting = {};
    // A tombstone whose pack is gone has done its work.
    std::map<PackId, const MarkedPack*> by_id;
    for (const MarkedPack& pack : packs_) by_id[pack.id] = &pack;
    for (const auto& [id, batch] : batches_) {
      for (const PackFileName& tombstone : batch.tombstones) {
        RETURN_IF_ERROR(cancel_->Check());
        const auto found = by_id.find(tombstone.id);
        const MarkedPack* pack = found == by_id.end() ? nullptr : found->second;
        RETURN_IF_ERROR(Settle(tombstone, pack, batch.is_ripe));
      }
      if (batch.is_ripe) RETURN_IF_ERROR(RemoveIfThere(files_, WaitsPath(id)));
    }
    return {};
  }

  // What becomes of a pack with a tombstone; `pack` is null when it is gone.
  Status Settle(const PackFileName& tombstone, const MarkedPack* pack, bool is_ripe) {
    const std::string folder = repository_.PackFolder(tombstone.id);
    if (pack != nullptr && !is_ripe) {
      Add(*pack, &report_.waiting);
      return {};
    }
    if (pack != nullptr && IsNeeded(*pack)) {
      Add(*pack, &report_.spared);
    } else if (pack != nullptr) {
      const std::string taken = OwnPath(HexOf(pack->id) + kPackSuffix);
      ASSIGN_OR_RETURN(const bool is_taken, Move(repository_.PackPath(pack->id), taken));
      // Before the tombstone goes: after a power cut the pack must not be there without it.
      RETURN_IF_ERROR(files_.SyncFolder(folder));
      if (is_taken) RETURN_IF_ERROR(RemoveIfThere(files_, taken));
      Add(*pack, &report_.deleted);
    }
    const std::string name = TombstoneName(tombstone);
    RETURN_IF_ERROR(Move(folder + "/" + name, OwnPath(name)));
    RETURN_IF_ERROR(files_.SyncFolder(folder));
    return RemoveIfThere(files_, OwnPath(name));
  }

  Status CopySparse() {
    std::set<PackId> staying;
    std::vector<const MarkedPack*> sparse;
    for (const MarkedPack& pack : packs_) {
      if (IsSparse(pack)) {
        sparse.push_back(&pack);
      } else if (!pack.tombstone && !IsDead(pack)) {
        staying.insert(pack.id);
      }
    }
    RateLimit rate_limit(options_.bytes_per_second);
    PackCopier copier(&repository_, name_, folder_, &rate_limit, &progress_.stored_bytes);
    Result<CopiedPacks> copied = copier.Copy(sparse, staying, *cancel_);
    if (!copied.ok()) return FencedOr(copied.status());
    report_.copied = {copied->packs.size(), copied->size};
    moved_ = std::move(copied->packs);
    return {};
  }

  // ---- Tombstones

  // Lays a tombstone beside each pack that is to go, then notes which sessions are open. True when
  // there are tombstones and nobody to wait for.
  Result<bool> Publish() {
    std::byte random[8];
    FillRandom(random);
    const std::string batch = HexOf(random);
    std::set<std::string> folders;
    for (const MarkedPack& pack : packs_) {
      const bool is_moved = moved_.contains(pack.id);
      if (!is_moved && !IsDead(pack)) continue;
      RETURN_IF_ERROR(cancel_->Check());
      const std::string name = TombstoneName(
          {pack.id, is_moved ? PackFileName::Kind::kMoved : PackFileName::Kind::kDead, batch});
      RETURN_IF_ERROR(CreateOwn(name));
      const std::string folder = repository_.PackFolder(pack.id);
      RETURN_IF_ERROR(Move(OwnPath(name), folder + "/" + name));
      folders.insert(folder);
      Add(pack, &report_.tombstoned);
    }
    moved_.clear();
    if (folders.empty()) return false;
    for (const std::string& folder : folders) RETURN_IF_ERROR(files_.SyncFolder(folder));
    ASSIGN_OR_RETURN(const std::vector<std::string> open, repository_.ListOpenSessions());
    RETURN_IF_ERROR(WriteWaits(batch, open));
    return open.empty();
  }

  struct Batch {
    std::vector<PackFileName> tombstones;
    bool is_ripe = false;
  };

  Repository& repository_;
  FileSystem& files_;
  const CollectOptions& options_;
  const Cancel* cancel_;
  Progress& progress_;
  const std::string name_;
  const std::string folder_;
  Expiry expiry_;
  CollectReport report_;

  // What was found by the last look.
  std::vector<MarkedPack> packs_;
  std::set<PackId> known_;  // Those that were seen first.
  std::map<std::string, Batch> batches_;
  std::set<std::string> open_sessions_;
  std::set<std::string, std::less<>> open_writers_;
  std::set<PackId> checkpointed_;
  std::vector<ListedManifest> manifests_;

  std::set<PackId> moved_;  // Whose live records lie in other packs, durably.
};

Result<CollectReport> Collect(Repository* repository, const CollectOptions& options,
                              const Cancel* cancel, Progress* progress) {
  Collector collector(repository, options, cancel, progress);
  Result<CollectReport> report = collector.Run();
  if (options.dry_run) return report;
  if (report.status().Is(reason::kRepositoryFull) && repository->ReleaseReserve()) {
    report = Collector(repository, options, cancel, progress).Run();
    if (report.ok()) {
      const std::vector<std::string>& dropped = collector.dropped_backups();
      report->dropped_backups.insert(report->dropped_backups.begin(), dropped.begin(),
                                     dropped.end());
    }
  }
  // Whether there is room for it again or not: what was collected is collected.
  if (report.ok()) static_cast<void>(repository->MakeReserve());
  return report;
}

}  // namespace blockferry
