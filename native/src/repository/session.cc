#include "repository/session.h"

#include <algorithm>
#include <cassert>
#include <set>

#include "repository/checkpoint_format.h"
#include "repository/manifest_list.h"
#include "repository/repository.h"
#include "repository/repository_format.h"
#include "repository/writer_folder.h"
#include "repository/writer_name.h"

namespace blockferry {

using namespace repository_format;

Session::Session(Repository* repository, SessionOptions options)
    : repository_(repository), options_(std::move(options)) {
  vm_folder_ = repository_->Path(std::string(kSessionsFolder) + "/" + options_.vm_pseudonym);
  name_ = MakeWriterName(options_.token);
  folder_ = vm_folder_ + "/" + name_;
  checkpoints_.emplace(repository_->files_, &repository_->naming(), vm_folder_, folder_,
                       options_.point_id);
}

Session::~Session() { static_cast<void>(Abort()); }

Status Session::Fenced(const std::string& what) const {
  return Status(reason::kRunFenced,
                "back up VM " + options_.vm_pseudonym + " with token " + TokenText(options_.token) +
                    ": " + what + "; this run may not commit, the newer one goes on",
                {{"vm_pseudonym", options_.vm_pseudonym}, {"token", TokenText(options_.token)}});
}

Status Session::Open() {
  FileSystem& files = repository_->files_;
  Status made = files.CreateFolder(vm_folder_);
  if (!made.ok() && !made.Is(reason::kAlreadyExists)) return made;
  RETURN_IF_ERROR(files.CreateFolder(folder_));
  RETURN_IF_ERROR(Fence());
  return RemoveLeftovers();
}

Status Session::Fence() {
  FileSystem& files = repository_->files_;
  ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files.List(vm_folder_));
  const std::string own_token = TokenText(options_.token);
  std::vector<std::string> older;
  for (const FolderEntry& entry : entries) {
    if (!IsWriterFolder(entry) || entry.name == name_) continue;
    if (entry.name.substr(0, kTokenTextSize) > own_token) return Fenced("a newer session is open");
    older.push_back(entry.name);
  }
  ASSIGN_OR_RETURN(std::vector<ListedManifest> listed,
                   repository_->ListManifests(options_.vm_pseudonym));
  for (const ListedManifest& one : listed) {
    if (one.manifest && one.manifest->token > options_.token) {
      return Fenced("a newer session has committed backup " + one.manifest->backup_id);
    }
  }
  for (const std::string& name : older) {
    RETURN_IF_ERROR(FenceWriter(files, vm_folder_, name, name_));
  }
  return older.empty() ? Status() : files.SyncFolder(vm_folder_);
}

// Folders of sessions that are fenced, and checkpoints of other points in time.
Status Session::RemoveLeftovers() {
  FileSystem& files = repository_->files_;
  RETURN_IF_ERROR(RemoveFencedWriters(files, vm_folder_));
  ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files.List(vm_folder_));
  for (const FolderEntry& entry : entries) {
    if (CheckpointFiles::IsCheckpoint(entry.name) && !checkpoints_->IsOwn(entry.name)) {
      RETURN_IF_ERROR(RemoveIfThere(files, vm_folder_ + "/" + entry.name));
    }
  }
  return {};
}

Result<std::unique_ptr<DiskWriter>> Session::OpenDisk(const std::string& disk_id, uint64_t size,
                                                      const std::optional<Digest>& base_root) {
  if (!IsDiskId(disk_id) || size > kDiskSizeMax) {
    bool is_id = !IsDiskId(disk_id);
    std::string value = is_id ? disk_id : std::to_string(size);
    return Status(reason::kArgumentInvalid,
                  "store a disk: " + std::string(is_id ? "disk_id" : "size_bytes") + " is \"" +
                      value + "\", it must be " +
                      (is_id ? "1 to 255 bytes without control characters" : "at most 2^53"),
                  {{"field", is_id ? "disk_id" : "size_bytes"}, {"value", value}});
  }
  RETURN_IF_ERROR(AwaitSealing());
  std::unique_ptr<DiskWriter> disk(new DiskWriter(this, disk_id, size, base_root));
  const std::optional<CheckpointFile> checkpoint = checkpoints_->Load(disk_id);
  if (!checkpoint || disk->RestoreState(*checkpoint)) return disk;
  // A checkpoint that does not fit is as good as none.
  return std::unique_ptr<DiskWriter>(new DiskWriter(this, disk_id, size, base_root));
}

Status Session::AwaitSealing() {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(CheckUsable());
  return EndSealing();
}

void Session::FindLacking(std::span<const Digest> names, std::span<bool> lacks) {
  const auto has = [](const auto& pack, const Digest& name) {
    return pack != nullptr && pack->Has(kWholeOrPatch, name);
  };
  {
    std::shared_lock lock(names_mutex_);
    for (size_t i = 0; i < names.size(); ++i) {
      lacks[i] = !has(pack_, names[i]) && !has(sealing_, names[i]);
    }
  }
  // Names go from the packs into the index and never back: asked in this order, none is missed.
  for (size_t i = 0; i < names.size(); ++i) lacks[i] = lacks[i] && !repository_->Has(names[i]);
}

Status Session::Fail(Status failure) {
  if (failure_.ok()) failure_ = std::move(failure);
  return failure_;
}

Status Session::CheckUsable() const {
  if (!ended_) return failure_;
  return Status(reason::kArgumentInvalid,
                "store a disk of VM " + options_.vm_pseudonym +
                    ": the session has committed or was aborted; open another one",
                {{"field", "session"}});
}

Result<std::optional<Session::Put>> Session::FindPresent(RecordTypes types, const Digest& name) {
  RETURN_IF_ERROR(CheckUsable());
  RETURN_IF_ERROR(EndSealingWhenDone());
  if (std::optional<RecordPlace> place = repository_->index_.Find(types, name)) {
    referenced_packs_.insert(place->pack);
    return std::optional<Put>(Put{});
  }
  if (pack_ != nullptr && pack_->Has(types, name)) {
    return std::optional<Put>(Put{filled_count_ + 1, 0});
  }
  if (sealing_ != nullptr && sealing_->Has(types, name)) {
    return std::optional<Put>(Put{filled_count_, 0});
  }
  return std::optional<Put>();
}

Result<std::optional<Session::Put>> Session::PutPresent(RecordTypes types, const Digest& name) {
  std::lock_guard lock(mutex_);
  return FindPresent(types, name);
}

Result<std::optional<Session::Put>> Session::PutRecord(const NewRecord& record) {
  std::lock_guard lock(mutex_);
  const bool is_node = record.type == RecordType::kMapNode;
  ASSIGN_OR_RETURN(std::optional<Put> present,
                   FindPresent(is_node ? RecordType::kMapNode : kWholeOrPatch, record.name));
  if (present) return present;
  if (record.type == RecordType::kPatch) {
    // This refers to the base's pack, too.
    ASSIGN_OR_RETURN(const std::optional<Put> base, FindPresent(RecordType::kChunk, record.base));
    if (!base) return base;
  }
  if (pack_ == nullptr) RETURN_IF_ERROR(StartPack());
  ASSIGN_OR_RETURN(const uint64_t stored_size, AppendToPack(record));
  Put put{filled_count_ + 1, stored_size};
  if (pack_->full()) RETURN_IF_ERROR(BeginSealing());
  return std::optional<Put>(put);
}

Result<uint64_t> Session::AppendToPack(const NewRecord& record) {
  const uint64_t size_before = pack_->size();
  Result<PackEntry> entry = pack_->Append(record);
  if (!entry.ok()) return Fail(entry.status());
  std::unique_lock lock(names_mutex_);
  pack_->Add(*entry);
  return pack_->size() - size_before;
}

Status Session::StartPack() {
  assert(!ended_);
  PackId id;
  FillRandom(id);
  Result<std::unique_ptr<PackWriter>> pack =
      PackWriter::Create(repository_->files_, folder_ + "/" + HexOf(id) + kNewPackSuffix,
                         repository_->id_, id, name_, repository_->limits_.pack_size);
  if (pack.status().Is(reason::kNotFound)) return Fail(Fenced("a newer session took over"));
  if (!pack.ok()) return Fail(pack.status());
  std::unique_lock lock(names_mutex_);
  pack_ = *std::move(pack);
  return {};
}

Status Session::BeginSealing() {
  RETURN_IF_ERROR(EndSealing());
  {
    std::unique_lock lock(names_mutex_);
    sealing_ = std::move(pack_);
  }
  ++filled_count_;
  const PackId& id = sealing_->id();
  const auto seal = [this, folder = repository_->PackFolder(id), path = repository_->PackPath(id)] {
    sealed_ = sealing_->Seal(folder, path);
    sealer_is_done_ = true;
  };
  sealer_is_done_ = false;
  if (repository_->limits_.seal_in_background) {
    sealer_ = std::thread(seal);
    return {};
  }
  seal();
  return EndSealing();
}

std::unique_ptr<PackWriter> Session::JoinSealing() {
  if (sealer_.joinable()) sealer_.join();
  std::unique_lock lock(names_mutex_);
  return std::move(sealing_);
}

Status Session::EndSealingWhenDone() {
  return sealing_ != nullptr && sealer_is_done_ ? EndSealing() : Status();
}

Status Session::EndSealing() {
  if (sealing_ == nullptr) return {};
  if (sealer_.joinable()) sealer_.join();
  if (sealed_.Is(reason::kNotFound)) sealed_ = Fenced("a newer session took over");
  if (!sealed_.ok()) return Fail(sealed_);
  // First into the index, then out of the way: at no moment it is in neither.
  Result<uint32_t> number = repository_->AddSealedPack(*sealing_);
  if (!number.ok()) return Fail(number.status());
  referenced_packs_.insert(*number);
  JoinSealing();
  ++sealed_count_;
  std::vector<Checkpoint> waiting;
  waiting.swap(pending_checkpoints_);
  for (Checkpoint& checkpoint : waiting) {
    if (checkpoint.ordinal > sealed_count_) {
      pending_checkpoints_.push_back(std::move(checkpoint));
    } else {
      RETURN_IF_ERROR(WriteCheckpoint(checkpoint.disk_id, checkpoint.state));
    }
  }
  return {};
}

Status Session::SaveCheckpoint(Checkpoint checkpoint, bool soon) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(CheckUsable());
  RETURN_IF_ERROR(EndSealingWhenDone());
  if (checkpoint.ordinal <= sealed_count_) {
    return WriteCheckpoint(checkpoint.disk_id, checkpoint.state);
  }
  // One that waits for the same pack, or for a later one, is worth less.
  std::erase_if(pending_checkpoints_, [&](const Checkpoint& other) {
    return other.disk_id == checkpoint.disk_id && other.ordinal >= checkpoint.ordinal;
  });
  const bool waits_for_open_pack = checkpoint.ordinal > filled_count_;
  pending_checkpoints_.push_back(std::move(checkpoint));
  return soon && waits_for_open_pack ? BeginSealing() : Status();
}

Status Session::WriteCheckpoint(const std::string& disk_id, Bytes state) {
  if (referenced_packs_.size() > checkpoint_format::kPackCountMax) return {};
  std::vector<PackId> pack_ids;
  pack_ids.reserve(referenced_packs_.size());
  for (const uint32_t pack : referenced_packs_) pack_ids.push_back(repository_->index_.IdOf(pack));
  Status written = checkpoints_->Write(disk_id, state, pack_ids);
  if (written.Is(reason::kNotFound)) written = Fenced("a newer session took over");
  return written.ok() ? written : Fail(written);
}

// False when one of the packs that a checkpoint refers to is gone or about to go.
bool Session::ReferTo(std::span<const PackId> pack_ids) {
  std::lock_guard lock(mutex_);
  for (const PackId& id : pack_ids) {
    std::optional<uint32_t> number = repository_->index_.PackNumber(id);
    if (!number) return false;
    referenced_packs_.insert(*number);
  }
  return true;
}

std::optional<Manifest> Session::FindCommitted(const std::vector<ListedManifest>& listed) const {
  for (const ListedManifest& one : listed) {
    const bool is_there = one.manifest && !one.is_dropped;
    if (is_there && one.manifest->point_id == options_.point_id) return one.manifest;
  }
  return std::nullopt;
}

Status Session::CheckReferences(const CommitOptions& options,
                                const std::vector<ListedManifest>& listed) {
  bool has_base = options.base_backup_id.empty();
  for (const ListedManifest& one : listed) {
    if (!one.manifest) continue;
    // Of one that is dropped a part may be gone that a map still leads to.
    if (one.manifest->backup_id == options.base_backup_id && !one.is_dropped) has_base = true;
    if (one.manifest->backup_id == options.backup_id) {
      return Status(
          reason::kAlreadyExists,
          "commit backup " + options.backup_id + ": this VM has a backup of that id; use a new id",
          {{"name", options.backup_id}});
    }
  }
  if (!has_base) {
    return Status(reason::kBaseMissing,
                  "commit backup " + options.backup_id + ": its base " + options.base_backup_id +
                      " is not in the repository any more; run the backup again",
                  {{"name", options.base_backup_id}});
  }
  RETURN_IF_ERROR(repository_->Refresh());
  std::set<std::string> pack_folders;
  for (uint32_t pack : referenced_packs_) {
    PackId pack_id = repository_->index_.IdOf(pack);
    if (repository_->index_.IsUsable(pack)) {
      pack_folders.insert(repository_->PackFolder(pack_id));
      continue;
    }
    std::string id = HexOf(pack_id);
    return Status(reason::kChunkMissing,
                  "commit backup " + options.backup_id + ": pack " + id +
                      ", which it refers to, is gone; run the backup again",
                  {{"pack", id}});
  }
  for (const ManifestDisk& disk : options.disks) {
    if (!disk.root) continue;
    ASSIGN_OR_RETURN(const bool is_present,
                     repository_->IsPresent(RecordType::kMapNode, *disk.root));
    if (is_present) continue;
    return Status(reason::kChunkMissing,
                  "commit backup " + options.backup_id + ": the root " + HexOf(*disk.root) +
                      " of disk " + disk.disk_id + " is in no pack; run the backup again",
                  {{"name", HexOf(*disk.root)}, {"disk_id", disk.disk_id}});
  }
  // A pack that another process renamed into place counts as durable only now: that process may
  // have ended before it synced the folder.
  for (const std::string& folder : pack_folders) {
    RETURN_IF_ERROR(repository_->files_.SyncFolder(folder));
  }
  return {};
}

// The commit point is the rename: it fails for a session that was fenced, since its folder was
// renamed away.
Status Session::WriteManifest(const Manifest& manifest) {
  FileSystem& files = repository_->files_;
  const std::string candidate_path = folder_ + "/" + kNewManifestFile;
  Result<std::unique_ptr<File>> candidate = files.CreateExclusive(candidate_path);
  if (candidate.status().Is(reason::kNotFound)) return Fenced("a newer session took over");
  RETURN_IF_ERROR(candidate);
  RETURN_IF_ERROR((*candidate)
                      ->Append(EncodeManifest(manifest, repository_->id_, repository_->naming(),
                                              repository_->record_key())));
  RETURN_IF_ERROR((*candidate)->Sync());
  std::string folder = repository_->ManifestFolder(manifest.vm_pseudonym);
  Status made = files.CreateFolder(folder);
  if (!made.ok() && !made.Is(reason::kAlreadyExists)) return made;
  // Also when the folder is there already: who made it may have ended before it was synced.
  RETURN_IF_ERROR(files.SyncFolder(repository_->Path(kManifestsFolder)));

  std::string sequence = std::to_string(manifest.sequence);
  if (sequence.size() < kSequenceDigits) sequence.insert(0, kSequenceDigits - sequence.size(), '0');
  Status renamed = files.RenameNoReplace(
      candidate_path, folder + "/" + sequence + "-" + manifest.backup_id + kManifestSuffix);
  if (renamed.Is(reason::kNotFound)) return Fenced("a newer session took over");
  RETURN_IF_ERROR(renamed);
  return files.SyncFolder(folder);
}

Result<Manifest> Session::Commit(const CommitOptions& options) {
  std::lock_guard lock(mutex_);
  Manifest manifest{
      options.backup_id, options_.vm_pseudonym, options_.point_id, options.base_backup_id, 0,
      options_.token,    options.disks,         options.body};
  RETURN_IF_ERROR(CheckManifest(manifest));
  ASSIGN_OR_RETURN(std::vector<ListedManifest> listed,
                   repository_->ListManifests(options_.vm_pseudonym));
  std::optional<Manifest> committed = FindCommitted(listed);
  if (committed) {
    RemoveFiles(true);
    return *committed;
  }
  RETURN_IF_ERROR(failure_);
  if (ended_) return Fenced("the session has ended");
  if (pack_ != nullptr) RETURN_IF_ERROR(BeginSealing());
  RETURN_IF_ERROR(EndSealing());
  if (Status checked = CheckReferences(options, listed); !checked.ok()) {
    // A collector does not wait for a session that was fenced.
    const bool is_fenced = repository_->files_.List(folder_).status().Is(reason::kNotFound);
    return is_fenced ? Fenced("a newer session took over") : checked;
  }
  if (options.lock_duration > 0) {
    ASSIGN_OR_RETURN(const RepositoryTime time, repository_->AdvanceTime(false));
    manifest.lock_until = time.latest() + options.lock_duration;
  }
  ASSIGN_OR_RETURN(
      const uint64_t last,
      LastSequence(repository_->files_, repository_->ManifestFolder(options_.vm_pseudonym)));
  manifest.sequence = last + 1;
  if (Status written = WriteManifest(manifest); !written.ok()) return Fail(written);
  RemoveFiles(true);
  return manifest;
}

Status Session::Abort() {
  std::lock_guard lock(mutex_);
  if (!ended_) RemoveFiles(false);
  return {};
}

// What cannot be removed now is removed by the next session of this VM. Only what lies in the own
// folder is: a pack that was renamed into place belongs to the repository, even if its folder could
// not be synced, because other sessions may refer to it already.
void Session::RemoveFiles(bool committed) {
  ended_ = true;
  FileSystem& files = repository_->files_;
  // The next session of the point continues where this pack ends. As long as the own folder is
  // there, a collector leaves the pack alone.
  if (failure_.ok()) static_cast<void>(EndSealing());
  JoinSealing();
  {
    std::unique_lock lock(names_mutex_);
    pack_.reset();
  }
  if (committed) checkpoints_->Remove();
  static_cast<void>(RemoveWriterFolder(files, folder_));
}

}  // namespace blockferry
