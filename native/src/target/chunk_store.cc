#include "target/chunk_store.h"

#include <utility>

#include "repository/repository.h"

namespace blockferry {

ChunkStore::ChunkStore(Session* session, std::unique_ptr<DiskWriter> writer, MapReader base,
                       MapReader earlier, Progress* progress)
    : session_(session),
      writer_(std::move(writer)),
      base_(std::move(base)),
      earlier_(std::move(earlier)),
      progress_(progress) {}

Result<std::unique_ptr<ChunkStore>> ChunkStore::Open(Session* session, const std::string& disk_id,
                                                     uint64_t size_bytes, const DiskRoots& roots,
                                                     Progress* progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer,
                   session->OpenDisk(disk_id, size_bytes, roots.base));
  const auto map_of = [&](const std::optional<Digest>& root) {
    return MapReader(&session->repository(), root, BlockCountOf(size_bytes));
  };
  std::unique_ptr<ChunkStore> store(new ChunkStore(session, std::move(writer), map_of(roots.base),
                                                   map_of(roots.earlier), progress));
  store->Report();
  return store;
}

void ChunkStore::FindLacking(std::span<const Digest> names, std::span<bool> lacks) {
  session_->FindLacking(names, lacks);
}

std::optional<BaseChunk> ChunkStore::ReadBase(uint64_t block_index, MutableBytes plain) {
  std::optional<Digest> name;
  {
    std::lock_guard lock(earlier_mutex_);
    Result<std::optional<Digest>> found = earlier_.Find(block_index);
    // A map that cannot be read costs the patch, never the block.
    if (found.ok()) name = *found;
  }
  return name ? session_->repository().ReadBase(*name, plain) : std::nullopt;
}

Result<bool> ChunkStore::Offer(uint64_t block_index, const Digest& name) {
  ASSIGN_OR_RETURN(const bool known, writer_->PutKnown(block_index, name));
  if (known) Report();
  return !known;
}

Result<bool> ChunkStore::Put(const Frame& frame) {
  ASSIGN_OR_RETURN(const bool taken, writer_->Put(frame.block_index, frame.record));
  if (taken) Report();
  return taken;
}

Status ChunkStore::Keep(uint64_t first_block, uint64_t end_block) {
  RETURN_IF_ERROR(writer_->Keep(base_, first_block, end_block));
  Report();
  return Status();
}

void ChunkStore::CountRead(uint64_t bytes) {
  writer_->CountRead(bytes);
  Report();
}

Result<std::optional<Digest>> ChunkStore::Seal() {
  ASSIGN_OR_RETURN(std::optional<Digest> root, writer_->Finish());
  Report();
  return root;
}

void ChunkStore::Report() {
  progress_->read_bytes.Set(writer_->counters().read);
  progress_->stored_bytes.Set(writer_->counters().stored);
  progress_->block_count.Set(writer_->counters().block_count);
}

}  // namespace blockferry
