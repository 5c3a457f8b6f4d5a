#include "repository/repository.h"

#include <algorithm>
#include <charconv>

#include "repository/damage_mark.h"
#include "repository/manifest_list.h"
#include "repository/pack_file_name.h"
#include "repository/repository_format.h"
#include "repository/repository_identity.h"
#include "repository/writer_folder.h"

namespace blockferry {
namespace {

using namespace repository_format;

// How often the packs are listed anew for one name. A listing is one folder after the other: while
// a collector moves a record from one pack to another it can miss both.
constexpr int kListingCountMax = 3;

std::string Join(const std::string& folder, std::string_view inside) {
  return folder + "/" + std::string(inside);
}

Status Missing(const std::string& folder, const std::string& what) {
  return Status(reason::kRepositoryMissing,
                "open repository " + folder + ": " + what +
                    "; check the path and that its file system is mounted, or create a repository "
                    "there",
                {{"path", folder}});
}

Status KeyMissing(const std::string& folder) {
  return Status(
      reason::kKeyMissing,
      "open repository " + folder +
          ": it is encrypted, and this program has no key of it; give a passphrase or the "
          "recovery key",
      {{"path", folder}});
}

std::string_view KindOf(RecordTypes types) {
  return types.Has(RecordType::kMapNode) ? "map node" : "chunk";
}

}  // namespace

Result<RepositoryIdentity> Repository::ReadIdentity(FileSystem& files, const std::string& folder) {
  std::string path = Join(folder, kRepositoryFile);
  Result<ByteVector> bytes = ReadWholeFile(files, path, 1024 * 1024);
  if (bytes.status().Is(reason::kNotFound)) return Missing(folder, "there is none");
  RETURN_IF_ERROR(bytes);
  return DecodeIdentity(*bytes, path);
}

Result<std::unique_ptr<Repository>> Repository::Open(FileSystem& files, const std::string& folder,
                                                     bool read_only, const RepositoryLimits& limits,
                                                     const Secret* secret) {
  ASSIGN_OR_RETURN(const RepositoryIdentity identity, ReadIdentity(files, folder));
  RepositoryKeys keys{identity.naming_key, {}};
  if (identity.is_encrypted) {
    if (secret == nullptr) return KeyMissing(folder);
    ASSIGN_OR_RETURN(keys, UnlockKeys(files, folder, identity.id, *secret));
  }
  std::unique_ptr<Repository> repository(
      new Repository(files, folder, read_only, identity.id, &keys, identity.is_encrypted, limits));
  RETURN_IF_ERROR(repository->Refresh());
  return repository;
}

Result<std::unique_ptr<Repository>> Repository::OpenWithoutKey(FileSystem& files,
                                                               const std::string& folder,
                                                               bool read_only,
                                                               const RepositoryLimits& limits) {
  ASSIGN_OR_RETURN(const RepositoryIdentity identity, ReadIdentity(files, folder));
  if (!identity.is_encrypted) return Open(files, folder, read_only, limits);
  std::unique_ptr<Repository> repository(
      new Repository(files, folder, read_only, identity.id, nullptr, true, limits));
  RETURN_IF_ERROR(repository->Refresh());
  return repository;
}

Repository::Repository(FileSystem& files, std::string folder, bool read_only,
                       const RepositoryId& id, const RepositoryKeys* keys, bool is_encrypted,
                       const RepositoryLimits& limits)
    : files_(files),
      folder_(std::move(folder)),
      read_only_(read_only),
      id_(id),
      is_encrypted_(is_encrypted),
      limits_(limits),
      index_(files, folder_, id,
             {limits.index_memory, limits.seal_in_background, read_only, limits.scratch_folder}),
      pack_files_(files, limits.open_pack_count) {
  if (keys == nullptr) return;
  naming_.emplace(keys->naming_key);
  if (is_encrypted) record_key_ = keys->record_key;
}

Status Repository::CheckKey() const { return naming_ ? Status() : KeyMissing(folder_); }

Repository::~Repository() = default;

std::string Repository::Path(std::string_view inside) const { return Join(folder_, inside); }

std::string Repository::PackFolder(const PackId& id) const {
  return Path(std::string(kPacksFolder) + "/" + HexOf(Bytes(id).first(1)));
}

std::string Repository::PackPath(const PackId& id) const {
  return PackFolder(id) + "/" + HexOf(id) + kPackSuffix;
}

std::string Repository::ManifestFolder(std::string_view vm_pseudonym) const {
  return Path(std::string(kManifestsFolder) + "/" + std::string(vm_pseudonym));
}

RepositoryInfo Repository::info() {
  return {id_,
          kVersion,
          kBlockSize,
          is_encrypted_,
          index_.pack_count(),
          index_.stored(),
          index_.chunk_count()};
}

std::vector<DamagedFile> Repository::damaged_packs() {
  std::lock_guard lock(damaged_mutex_);
  std::vector<DamagedFile> files;
  for (const auto& [path, damage] : damaged_) files.push_back({path, damage});
  return files;
}

Status Repository::CheckWritable(std::string_view doing) const {
  if (!read_only_) return {};
  return Status(reason::kRepositoryReadOnly,
                std::string(doing) + " in repository " + folder_ +
                    ": it was opened for reading only; open it for writing",
                {{"path", folder_}});
}

Result<uint64_t> Repository::DrawIncarnation() {
  RETURN_IF_ERROR(CheckWritable("draw an incarnation"));
  std::string folder = Path(kIncarnationsFolder);
  ASSIGN_OR_RETURN(std::vector<FolderEntry> entries, files_.List(folder));
  uint64_t last = 0;
  for (const FolderEntry& entry : entries) {
    uint64_t number = 0;
    const char* end = entry.name.data() + entry.name.size();
    auto [at, error] = std::from_chars(entry.name.data(), end, number);
    if (error == std::errc() && at == end) last = std::max(last, number);
  }
  for (;;) {
    std::string digits = std::to_string(++last);
    if (digits.size() < kIncarnationDigits) {
      digits.insert(0, kIncarnationDigits - digits.size(), '0');
    }
    Result<std::unique_ptr<File>> file = files_.CreateExclusive(folder + "/" + digits);
    if (file.status().Is(reason::kAlreadyExists)) continue;
    RETURN_IF_ERROR(file);
    RETURN_IF_ERROR(files_.SyncFolder(folder));
    return last;
  }
}

Result<std::unique_ptr<Session>> Repository::OpenSession(const SessionOptions& options) {
  RETURN_IF_ERROR(CheckWritable("open a session"));
  RETURN_IF_ERROR(CheckKey());
  if (!IsPseudonym(options.vm_pseudonym)) {
    return Status(reason::kArgumentInvalid,
                  "open a session: vm_pseudonym is \"" + options.vm_pseudonym +
                      "\", it must be 32 lower-case hex digits",
                  {{"field", "vm_pseudonym"}, {"value", options.vm_pseudonym}});
  }
  if (!IsFileId(options.point_id)) {
    return Status(reason::kArgumentInvalid,
                  "open a session: point_id is \"" + options.point_id +
                      "\", it must be 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen, not "
                      "starting with a dot",
                  {{"field", "point_id"}, {"value", options.point_id}});
  }
  std::unique_ptr<Session> session(new Session(this, options));
  RETURN_IF_ERROR(session->Open());
  RETURN_IF_ERROR(Refresh());
  return session;
}

Result<std::vector<std::string>> Repository::ListOpenSessions() {
  const std::string sessions = Path(kSessionsFolder);
  std::vector<std::string> open;
  ASSIGN_OR_RETURN(const std::vector<FolderEntry> vms, files_.List(sessions));
  for (const FolderEntry& vm : vms) {
    if (!vm.is_folder || !IsPseudonym(vm.name)) continue;
    ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files_.List(sessions + "/" + vm.name));
    for (const FolderEntry& entry : entries) {
      if (IsWriterFolder(entry)) open.push_back(vm.name + "/" + entry.name);
    }
  }
  return open;
}

Result<std::vector<ListedManifest>> Repository::ListManifests(
    const std::optional<std::string>& vm_pseudonym) {
  std::vector<ListedManifest> listed;
  std::vector<std::string> vms;
  if (vm_pseudonym) {
    if (IsPseudonym(*vm_pseudonym)) vms.push_back(*vm_pseudonym);
  } else {
    ASSIGN_OR_RETURN(std::vector<FolderEntry> entries, files_.List(Path(kManifestsFolder)));
    for (const FolderEntry& entry : entries) {
      if (IsPseudonym(entry.name)) vms.push_back(entry.name);
    }
  }
  for (const std::string& vm : vms) {
    RETURN_IF_ERROR(ListManifestFolder(files_, ManifestFolder(vm), vm, id_,
                                       naming_ ? &*naming_ : nullptr, record_key(), &listed));
    RETURN_IF_ERROR(SyncManifests(vm));
  }
  return listed;
}

// A manifest whose commit ended before its folder was synced is there, but a power cut could take
// it back. What is listed is taken for committed, so it has to be durable.
Status Repository::SyncManifests(const std::string& vm_pseudonym) {
  if (read_only_) return {};
  Status synced = files_.SyncFolder(ManifestFolder(vm_pseudonym));
  return synced.Is(reason::kNotFound) ? Status() : synced;
}

Status Repository::ReadTable(const std::string& path, const ListedPack& listed) {
  Result<PackTable> table = ReadPackTable(files_, path, id_, listed.id);
  if (table.status().Is(reason::kNotFound)) return {};
  if (table.ok()) RETURN_IF_ERROR(index_.AddPack(listed, table->size, table->entries));
  if (table.status().Is(reason::kRepositoryDamaged)) index_.SetLacking(listed.id);
  std::lock_guard lock(damaged_mutex_);
  if (table.ok()) {
    damaged_.erase(path);
  } else {
    damaged_.insert_or_assign(path, table.status());
  }
  return {};
}

Status Repository::RefreshFolder(std::byte number) {
  const std::string folder = Path(std::string(kPacksFolder) + "/" + HexOf(Bytes(&number, 1)));
  Result<std::vector<FolderEntry>> entries = files_.List(folder);
  if (entries.status().Is(reason::kNotFound)) {
    return Status(reason::kRepositoryDamaged,
                  "list the packs in " + folder +
                      ": the folder is not there; is the whole file system mounted?",
                  {{"path", folder}});
  }
  RETURN_IF_ERROR(entries);
  std::vector<ListedPack> listed;
  std::vector<DamageMark> damages;
  std::optional<PackId> tombstoned;  // A tombstone sorts before its pack.
  for (const FolderEntry& entry : *entries) {
    if (const std::optional<DamageMark> mark = ParseDamageMark(entry.name)) {
      damages.push_back(*mark);
      continue;
    }
    const std::optional<PackFileName> name = ParsePackFileName(entry.name);
    if (!name || name->id[0] != number) continue;
    if (name->kind == PackFileName::Kind::kPack) {
      listed.push_back({name->id, tombstoned == name->id});
    } else {
      tombstoned = name->id;
    }
  }
  std::vector<ListedPack> unread;
  std::vector<PackId> gone;
  index_.SetListed(number, listed, &unread, &gone);
  for (const PackId& id : gone) pack_files_.Close(PackPath(id));
  {
    std::lock_guard lock(damaged_mutex_);
    std::erase_if(damaged_, [&](const auto& entry) {
      if (!entry.first.starts_with(folder + "/")) return false;
      return std::none_of(listed.begin(), listed.end(),
                          [&](const ListedPack& one) { return PackPath(one.id) == entry.first; });
    });
  }
  for (const ListedPack& one : unread) RETURN_IF_ERROR(ReadTable(PackPath(one.id), one));
  for (const DamageMark& mark : damages) {
    const std::optional<uint32_t> pack = index_.PackNumber(mark.id);
    if (pack) static_cast<void>(index_.MarkDamaged(*pack, mark.offset));
  }
  return {};
}

Status Repository::Refresh() {
  std::lock_guard lock(refresh_mutex_);
  index_.ReadFiles();
  for (int i = 0; i < 256; ++i) RETURN_IF_ERROR(RefreshFolder(static_cast<std::byte>(i)));
  index_.Settle();
  return {};
}

Result<uint32_t> Repository::AddSealedPack(const PackWriter& pack) {
  std::lock_guard lock(refresh_mutex_);
  if (std::optional<uint32_t> number = index_.PackNumber(pack.id())) return *number;
  return index_.AddPack({pack.id()}, pack.size(), pack.entries());
}

Result<bool> Repository::IsPresent(RecordTypes types, const Digest& name) {
  for (int listing_count = 0;;) {
    const uint64_t mark = index_.whole_mark();
    if (index_.Has(types, name)) return true;
    if (index_.IsWholeSince(mark) && ++listing_count > kListingCountMax) return false;
    RETURN_IF_ERROR(Refresh());
  }
}

bool Repository::Has(const Digest& name) { return index_.Find(kWholeOrPatch, name).has_value(); }

Status Repository::ReadWhole(File& file, const RecordRequest& request, MutableBytes* plain) {
  ASSIGN_OR_RETURN(const size_t size, ReadRecordAt(file, request, *plain));
  *plain = plain->first(size);
  return {};
}

// First the base, then the pages over it.
Status Repository::ReadPatched(File& file, const RecordRequest& request, MutableBytes plain,
                               uint64_t* stored_size) {
  ASSIGN_OR_RETURN(const Patch patch, ReadPatchAt(file, request, plain.size()));
  uint64_t base_size = 0;
  const Result<size_t> base =
      ReadRecord({RecordType::kChunk, true, request.proof}, patch.head.base, plain, &base_size);
  if (base.status().Is(reason::kChunkMissing) || base.status().Is(reason::kBlockCorrupt)) {
    return Status(reason::kBlockCorrupt, "its base is lost, " + base.status().message());
  }
  RETURN_IF_ERROR(base);
  LayPagesOver(patch.head.pages, patch.pages, plain);
  *stored_size += base_size;
  return {};
}

// On success `plain` is cut to the plain bytes.
Status Repository::ReadPlace(const ReadOptions& options, const Digest& name,
                             const RecordPlace& place, MutableBytes* plain, uint64_t* stored_size) {
  const PackId id = index_.IdOf(place.pack);
  auto failure = [&](std::string_view reason, const std::string& what) {
    return Status(
        reason,
        "read " + std::string(KindOf(place.type)) + " " + HexOf(name) + " at offset " +
            std::to_string(place.offset) + " of pack " + HexOf(id) + ": " + what +
            "; use another backup or another copy",
        {{"name", HexOf(name)}, {"pack", HexOf(id)}, {"offset", std::to_string(place.offset)}});
  };
  Result<std::shared_ptr<File>> file = pack_files_.Open(PackPath(id));
  if (file.status().Is(reason::kNotFound)) return failure(reason::kNotFound, "the pack is gone");
  RETURN_IF_ERROR(file);
  const RecordRequest request{
      place.type,    name,        place.offset, place.stored_size, options.size_is_exact,
      options.proof, record_key()};
  *stored_size = place.stored_size;
  const Status read = place.type == RecordType::kPatch
                          ? ReadPatched(**file, request, *plain, stored_size)
                          : ReadWhole(**file, request, plain);
  std::string damage;
  if (read.ok()) {
    // Without a key the digest of what is stored, which covers the name before it, has to do.
    const Digest actual = !naming_                             ? name
                          : place.type == RecordType::kMapNode ? naming_->NodeName(*plain)
                                                               : naming_->ChunkName(*plain);
    if (actual == name) {
      // Only a full proof takes a mark back: the name and every stored byte.
      const bool is_proven = naming_ && options.proof == Proof::kPlainAndStored;
      if (is_proven && index_.ClearDamaged(place.pack, place.offset) && !read_only_) {
        RemoveDamageMark(files_, PackFolder(id), {id, place.offset});
      }
      return {};
    }
    const Status stored = CheckStoredAt(**file, request);
    damage = stored.Is(reason::kBlockCorrupt)
                 ? stored.message()
                 : "its plain bytes do not have the digest that names them";
  } else if (read.Is(reason::kBlockCorrupt)) {
    damage = read.message();
  } else {
    return read;
  }
  // From now on a backup stores it anew.
  if (index_.MarkDamaged(place.pack, place.offset) && !read_only_) {
    SetDamageMark(files_, PackFolder(id), {id, place.offset});
  }
  return failure(reason::kBlockCorrupt, damage);
}

// No usable pack holds the name. One that could not be reached may: that is worth another try.
Status Repository::Lacking(RecordTypes types, const Digest& name) {
  std::vector<DamagedFile> damaged = damaged_packs();
  std::string what = "read " + std::string(KindOf(types)) + " " + HexOf(name) + ": ";
  for (const DamagedFile& pack : damaged) {
    if (pack.damage.Is(reason::kRepositoryDamaged)) continue;
    return Status(pack.damage.reason(), what + "a pack was passed over, " + pack.damage.message(),
                  {{"name", HexOf(name)}, {"path", pack.path}});
  }
  return Status(reason::kChunkMissing,
                what + "no pack holds it, " + std::to_string(damaged.size()) +
                    " packs cannot be read; use another backup or another copy",
                {{"name", HexOf(name)}, {"damaged_packs", std::to_string(damaged.size())}});
}

Result<size_t> Repository::ReadAnyPlace(const ReadOptions& options, const Digest& name,
                                        MutableBytes plain, uint64_t* stored_size) {
  Status failure;
  for (const RecordPlace& place : index_.FindAll(options.types, name)) {
    MutableBytes read = plain;
    uint64_t size = 0;
    Status status = ReadPlace(options, name, place, &read, &size);
    if (status.ok()) {
      if (stored_size != nullptr) *stored_size = size;
      return read.size();
    }
    // Of several, the one that is worth another try counts.
    if (failure.ok() || failure.Is(reason::kBlockCorrupt)) failure = status;
    if (status.Is(reason::kNotFound)) failure = status;
  }
  return failure.ok() ? Lacking(options.types, name) : failure;
}

// A file of the index that is damaged is passed over, and the tables of its packs are read: each
// round has at least one file less. A pack that a collector deleted has left what is still referred
// to in another one, which the next listing finds.
Result<size_t> Repository::ReadRecord(const ReadOptions& options, const Digest& name,
                                      MutableBytes plain, uint64_t* stored_size) {
  for (int listing_count = 0;;) {
    const uint64_t mark = index_.whole_mark();
    Result<size_t> size = ReadAnyPlace(options, name, plain, stored_size);
    const bool is_gone =
        size.status().Is(reason::kNotFound) || size.status().Is(reason::kChunkMissing);
    if (is_gone && ++listing_count > kListingCountMax) return Lacking(options.types, name);
    if (!is_gone && (size.ok() || index_.IsWholeSince(mark))) return size;
    RETURN_IF_ERROR(Refresh());
  }
}

Status Repository::ReadChunk(const Digest& name, MutableBytes plain, Proof proof,
                             uint64_t* stored_size) {
  RETURN_IF_ERROR(CheckKey());
  return ToStatus(ReadRecord({kWholeOrPatch, true, proof}, name, plain, stored_size));
}

std::optional<BaseChunk> Repository::ReadBase(const Digest& name, MutableBytes plain) {
  BaseChunk base{name, 0};
  std::optional<RecordPlace> place = index_.Find(RecordType::kChunk, name);
  if (!place) {
    const std::optional<RecordPlace> patch_place = index_.Find(RecordType::kPatch, name);
    if (!patch_place) return std::nullopt;
    Result<std::shared_ptr<File>> file = pack_files_.Open(PackPath(index_.IdOf(patch_place->pack)));
    if (!file.ok()) return std::nullopt;
    const Result<Patch> patch =
        ReadPatchAt(**file,
                    {RecordType::kPatch, name, patch_place->offset, patch_place->stored_size, true,
                     Proof::kPlain, record_key()},
                    plain.size());
    if (!patch.ok()) return std::nullopt;
    base.name = patch->head.base;
  }
  uint64_t stored_size = 0;
  if (!ReadRecord({RecordType::kChunk}, base.name, plain, &stored_size).ok()) {
    return std::nullopt;
  }
  base.stored_size = static_cast<uint32_t>(stored_size);
  return base;
}

Result<size_t> Repository::ReadNode(const Digest& name, MutableBytes buffer) {
  // There are few of them: a walk over the map leaves nothing of theirs unproven.
  return ReadRecord({RecordType::kMapNode, false, Proof::kPlainAndStored}, name, buffer, nullptr);
}

}  // namespace blockferry
