#include "repository/repository_keys.h"

#include <algorithm>

#include "core/aead.h"
#include "core/endian.h"
#include "repository/key_slot_format.h"

namespace blockferry {
namespace {

using namespace key_slot_format;

// 32 MiB and about 0.2 s, the third of the equal choices that OWASP gives for scrypt: a mover that
// opens a repository stays below its memory.
constexpr ScryptCost kCost{15, 8, 3};
// Each salt makes a key that seals once.
constexpr AeadNonce kNonce{};

struct SlotFile {
  KeySlot slot;
  RepositoryId repository{};
  std::array<std::byte, kSaltSize> salt{};
  ScryptCost cost;
  Bytes clear;   // All before the sealed keys.
  Bytes sealed;  // The keys and a tag.
};

std::string FolderOf(const std::string& repository_folder) {
  return repository_folder + "/" + kKeysFolder;
}

bool DecodeSlot(Bytes bytes, SlotFile* file) {
  constexpr size_t kSealedSize = 2 * sizeof(Digest) + kAeadTagSize;
  if (bytes.size() < sizeof(Digest)) return false;
  const Bytes digested = bytes.first(bytes.size() - sizeof(Digest));
  if (!Equal(Blake3Hash(digested), bytes.last(sizeof(Digest)))) return false;
  ByteReader in(digested);
  if (TextOf(in.TakeBytes(kMagicSize)) != kMagic || in.Take<uint32_t>() != kVersion) return false;
  const uint32_t kind = in.Take<uint32_t>();
  if (kind != static_cast<uint32_t>(Secret::Kind::kPassphrase) &&
      kind != static_cast<uint32_t>(Secret::Kind::kKey)) {
    return false;
  }
  file->slot.kind = static_cast<Secret::Kind>(kind);
  in.TakeInto(file->repository);
  file->slot.slot_id = HexOf(in.TakeBytes(kSlotIdSize));
  in.TakeInto(file->salt);
  file->cost.log2_n = in.Take<uint32_t>();
  file->cost.r = in.Take<uint32_t>();
  file->cost.p = in.Take<uint32_t>();
  static_cast<void>(in.Take<uint32_t>());
  file->slot.label = in.TakeText(kLabelSizeMax);
  if (!in.ok() || in.remaining() != kSealedSize) return false;
  file->clear = digested.first(digested.size() - kSealedSize);
  file->sealed = digested.last(kSealedSize);
  return true;
}

// False when the slot's cost cannot be.
bool WrappingKey(const SlotFile& file, const Secret& secret, Digest* key) {
  if (secret.kind == Secret::Kind::kPassphrase) {
    return Scrypt(secret.bytes, file.salt, file.cost, key);
  }
  ByteVector material = secret.bytes;
  material.insert(material.end(), file.salt.begin(), file.salt.end());
  *key = Blake3DeriveKey(kKeyContext, material);
  return true;
}

std::optional<RepositoryKeys> Unwrap(const SlotFile& file, const Secret& secret) {
  Digest wrapping_key;
  if (!WrappingKey(file, secret, &wrapping_key)) return std::nullopt;
  std::array<std::byte, 2 * sizeof(Digest)> keys;
  if (!Aead(wrapping_key).Open(kNonce, file.clear, file.sealed, keys)) return std::nullopt;
  RepositoryKeys unlocked;
  std::copy_n(keys.begin(), sizeof(Digest), unlocked.naming_key.begin());
  std::copy_n(keys.begin() + sizeof(Digest), sizeof(Digest), unlocked.record_key.begin());
  return unlocked;
}

Status Invalid(const std::string& field, const std::string& value, const std::string& rule) {
  return Status(reason::kArgumentInvalid,
                "add a key slot: " + field + " is " + value + ", it must be " + rule,
                {{"field", field}, {"value", value}});
}

// Says nothing of the secret but its size.
Status CheckAdded(const Secret& added, const std::string& label) {
  const std::string size = std::to_string(added.bytes.size()) + " bytes";
  if (added.kind == Secret::Kind::kKey && added.bytes.size() != kKeySize) {
    return Invalid("key", size, "32 bytes");
  }
  if (added.bytes.empty() || added.bytes.size() > kPassphraseSizeMax) {
    return Invalid("passphrase", size, "1 to 1024 bytes");
  }
  const bool has_control = std::any_of(label.begin(), label.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (label.size() > kLabelSizeMax || has_control) {
    return Invalid("label", "\"" + label + "\"", "at most 200 bytes without control characters");
  }
  return {};
}

// Calls `visit` with each slot of the repository, whose bytes live during the call; a missing
// folder has none.
template <typename Visit>
Status ForEachSlot(FileSystem& files, const std::string& folder, const RepositoryId& repository,
                   Visit visit) {
  Result<std::vector<FolderEntry>> entries = files.List(FolderOf(folder));
  if (entries.status().Is(reason::kNotFound)) return {};
  RETURN_IF_ERROR(entries);
  for (const FolderEntry& entry : *entries) {
    if (!entry.name.ends_with(kKeySuffix)) continue;
    Result<ByteVector> bytes =
        ReadWholeFile(files, FolderOf(folder) + "/" + entry.name, kFileSizeMax);
    // Removed since it was listed, or no slot.
    if (bytes.status().Is(reason::kNotFound) || bytes.status().Is(reason::kRepositoryDamaged)) {
      continue;
    }
    RETURN_IF_ERROR(bytes);
    SlotFile file;
    if (DecodeSlot(*bytes, &file) && file.repository == repository &&
        file.slot.slot_id + kKeySuffix == entry.name) {
      visit(file);
    }
  }
  return {};
}

}  // namespace

bool IsWholeKeySlot(Bytes bytes) {
  SlotFile file;
  return DecodeSlot(bytes, &file);
}

Result<std::vector<KeySlot>> ListKeySlots(FileSystem& files, const std::string& folder,
                                          const RepositoryId& repository) {
  std::vector<KeySlot> slots;
  RETURN_IF_ERROR(ForEachSlot(files, folder, repository,
                              [&](const SlotFile& file) { slots.push_back(file.slot); }));
  return slots;
}

Result<RepositoryKeys> UnlockKeys(FileSystem& files, const std::string& folder,
                                  const RepositoryId& repository, const Secret& secret) {
  std::optional<RepositoryKeys> keys;
  RETURN_IF_ERROR(ForEachSlot(files, folder, repository, [&](const SlotFile& file) {
    if (!keys && file.slot.kind == secret.kind) keys = Unwrap(file, secret);
  }));
  if (keys) return *keys;
  const bool is_passphrase = secret.kind == Secret::Kind::kPassphrase;
  return Status(reason::kKeyWrong,
                "open repository " + folder + ": the " + (is_passphrase ? "passphrase" : "key") +
                    " opens none of its key slots; it is another one, or its slot was removed: try "
                    "another passphrase or the recovery key",
                {{"path", folder}});
}

Result<KeySlot> AddKeySlot(FileSystem& files, const std::string& folder,
                           const RepositoryId& repository, const RepositoryKeys& keys,
                           const Secret& added, const std::string& label) {
  RETURN_IF_ERROR(CheckAdded(added, label));
  SlotFile file;
  std::byte slot_id[kSlotIdSize];
  FillRandom(slot_id);
  file.slot = {HexOf(slot_id), added.kind, label};
  FillRandom(file.salt);
  if (added.kind == Secret::Kind::kPassphrase) file.cost = kCost;
  ByteVector bytes;
  ByteWriter out(&bytes);
  out.PutBytes(BytesOf(kMagic));
  out.Put(kVersion);
  out.Put(static_cast<uint32_t>(added.kind));
  out.PutBytes(repository);
  out.PutBytes(slot_id);
  out.PutBytes(file.salt);
  out.Put(file.cost.log2_n);
  out.Put(file.cost.r);
  out.Put(file.cost.p);
  out.Put(uint32_t{0});
  out.PutText(label);
  Digest wrapping_key;
  if (!WrappingKey(file, added, &wrapping_key)) {
    return Status(reason::kInternal, "add a key slot: scrypt failed; is there memory left?");
  }
  ByteVector plain(keys.naming_key.begin(), keys.naming_key.end());
  plain.insert(plain.end(), keys.record_key.begin(), keys.record_key.end());
  ByteVector sealed(plain.size() + kAeadTagSize);
  Aead(wrapping_key).Seal(kNonce, bytes, plain, sealed);
  out.PutBytes(sealed);
  out.PutBytes(Blake3Hash(bytes));

  Status made = files.CreateFolder(FolderOf(folder));
  if (!made.ok() && !made.Is(reason::kAlreadyExists)) return made;
  if (made.ok()) RETURN_IF_ERROR(files.SyncFolder(folder));
  const std::string path = FolderOf(folder) + "/" + file.slot.slot_id;
  ASSIGN_OR_RETURN(std::unique_ptr<File> fresh, files.CreateExclusive(path + kNewKeySuffix));
  RETURN_IF_ERROR(fresh->Append(bytes));
  RETURN_IF_ERROR(fresh->Sync());
  RETURN_IF_ERROR(files.RenameNoReplace(path + kNewKeySuffix, path + kKeySuffix));
  RETURN_IF_ERROR(files.SyncFolder(FolderOf(folder)));
  return file.slot;
}

Status RemoveKeySlot(FileSystem& files, const std::string& folder, const RepositoryId& repository,
                     const std::string& slot_id) {
  const Status last(reason::kKeySlotLast,
                    "remove key slot " + slot_id +
                        ": it is the last one, without it nobody could read the backups; add "
                        "another one first",
                    {{"name", slot_id}});
  ASSIGN_OR_RETURN(const std::vector<KeySlot> slots, ListKeySlots(files, folder, repository));
  const bool is_there = std::any_of(slots.begin(), slots.end(),
                                    [&](const KeySlot& slot) { return slot.slot_id == slot_id; });
  if (!is_there) {
    return Status(
        reason::kNotFound,
        "remove key slot " + slot_id + ": the repository has no such slot; list its slots",
        {{"name", slot_id}});
  }
  if (slots.size() == 1) return last;
  // Put aside first, then looked at what is left: whoever removes the others at the same time does
  // the same, and at least one of us sees that there is nothing left.
  const std::string path = FolderOf(folder) + "/" + slot_id;
  RETURN_IF_ERROR(files.RenameNoReplace(path + kKeySuffix, path + kRemovedKeySuffix));
  const Result<std::vector<KeySlot>> left = ListKeySlots(files, folder, repository);
  if (!left.ok() || left->empty()) {
    RETURN_IF_ERROR(files.RenameNoReplace(path + kRemovedKeySuffix, path + kKeySuffix));
    RETURN_IF_ERROR(left);
    return last;
  }
  RETURN_IF_ERROR(files.Remove(path + kRemovedKeySuffix));
  return files.SyncFolder(FolderOf(folder));
}

}  // namespace blockferry
