// Looking names up and reading what they name, from whichever place is whole.
#include <algorithm>

#include "repository/damage_mark.h"
#include "repository/repository.h"

namespace blockferry {
namespace {

// How often the packs are listed anew for one name. A listing is one folder after the other: while
// a collector moves a record from one pack to another it can miss both.
constexpr int kListingCountMax = 3;

std::string_view KindOf(RecordTypes types) {
  return types.Has(RecordType::kMapNode) ? "map node" : "chunk";
}

}  // namespace

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
