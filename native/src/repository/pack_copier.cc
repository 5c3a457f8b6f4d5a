#include "repository/pack_copier.h"

#include "repository/repository.h"
#include "repository/repository_format.h"

namespace blockferry {

PackCopier::PackCopier(Repository* repository, std::string writer, std::string folder,
                       RateLimit* rate_limit, Counter* written)
    : repository_(*repository),
      files_(repository->files_),
      writer_(std::move(writer)),
      folder_(std::move(folder)),
      rate_limit_(*rate_limit),
      written_(*written) {}

Result<CopiedPacks> PackCopier::Copy(const std::vector<const MarkedPack*>& sparse,
                                     const std::set<PackId>& staying, const Cancel& cancel) {
  Result<CopiedPacks> copied = CopyAll(sparse, staying, cancel);
  // The packs stay as they are then.
  if (copied.status().Is(reason::kRepositoryFull)) return CopiedPacks();
  return copied;
}

Result<CopiedPacks> PackCopier::CopyAll(const std::vector<const MarkedPack*>& sparse,
                                        const std::set<PackId>& staying, const Cancel& cancel) {
  CopiedPacks copied;
  for (const MarkedPack* pack : sparse) {
    const Result<uint64_t> size = CopyLive(*pack, staying, cancel);
    if (size.status().Is(reason::kBlockCorrupt)) continue;
    RETURN_IF_ERROR(size);
    copied.size += *size;
    copied.packs.insert(pack->id);
  }
  RETURN_IF_ERROR(Seal());
  return copied;
}

Result<uint64_t> PackCopier::CopyLive(const MarkedPack& pack, const std::set<PackId>& staying,
                                      const Cancel& cancel) {
  const std::string path = repository_.PackPath(pack.id);
  ASSIGN_OR_RETURN(const PackTable table, ReadPackTable(files_, path, repository_.id_, pack.id));
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files_.OpenForRead(path));
  uint64_t copied_size = 0;
  size_t patch_count = 0;
  for (size_t i = 0; i < table.entries.size(); ++i) {
    const PackEntry& entry = table.entries[i];
    const Digest* base = entry.type == RecordType::kPatch ? &table.bases[patch_count++] : nullptr;
    if (i >= pack.live.size() || !pack.live[i]) continue;
    if (HasGoodCopy(entry, staying)) continue;
    ASSIGN_OR_RETURN(const ByteVector record, ReadWholeRecord(*file, entry));
    RETURN_IF_ERROR(Append(entry, record, base));
    copied_size += record.size();
    written_.Add(record.size());
    RETURN_IF_ERROR(rate_limit_.Take(record.size(), cancel));
  }
  return copied_size;
}

bool PackCopier::HasGoodCopy(const PackEntry& entry, const std::set<PackId>& staying) {
  for (const RecordPlace& place : repository_.index_.FindAll(entry.type, entry.name)) {
    const PackId id = repository_.index_.IdOf(place.pack);
    if (!staying.contains(id)) continue;
    const Result<std::unique_ptr<File>> file = files_.OpenForRead(repository_.PackPath(id));
    if (!file.ok()) continue;
    PackEntry copy = entry;
    copy.offset = place.offset;
    copy.stored_size = place.stored_size;
    if (ReadWholeRecord(**file, copy).ok()) return true;
  }
  return false;
}

Status PackCopier::Append(const PackEntry& entry, Bytes record, const Digest* base) {
  if (copy_ == nullptr) {
    PackId id;
    FillRandom(id);
    ASSIGN_OR_RETURN(
        copy_,
        PackWriter::Create(files_, folder_ + "/" + HexOf(id) + repository_format::kNewPackSuffix,
                           repository_.id_, id, writer_, repository_.limits_.pack_size));
  }
  RETURN_IF_ERROR(copy_->Copy(entry, record, base));
  return copy_->full() ? Seal() : Status();
}

Status PackCopier::Seal() {
  if (copy_ == nullptr) return {};
  const std::unique_ptr<PackWriter> copy = std::move(copy_);
  return copy->Seal(repository_.PackFolder(copy->id()), repository_.PackPath(copy->id()));
}

}  // namespace blockferry
