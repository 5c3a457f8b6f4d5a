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

}  // namespace blockferry
