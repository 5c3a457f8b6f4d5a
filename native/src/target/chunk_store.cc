#include "target/chunk_store.h"

#include <utility>

#include "repository/repository.h"

namespace blockferry {

ChunkStore::ChunkStore(Session* session, std::unique_ptr<DiskWriter> writer, MapReader base,
                       Progress* progress)
    : session_(session), writer_(std::move(writer)), base_(std::move(base)), progress_(progress) {}

Result<std::unique_ptr<ChunkStore>> ChunkStore::Open(Session* session, const std::string& disk_id,
                                                     uint64_t size_bytes,
                                                     const std::optional<Digest>& base_root,
                                                     Progress* progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer,
                   session->OpenDisk(disk_id, size_bytes, base_root));
  MapReader base(&session->repository(), base_root, BlockCountOf(size_bytes));
  std::unique_ptr<ChunkStore> store(
      new ChunkStore(session, std::move(writer), std::move(base), progress));
  store->Report();
  return store;
}

void ChunkStore::FindLacking(std::span<const Digest> names, std::span<bool> lacks) {
  session_->FindLacking(names, lacks);
}

Result<bool> ChunkStore::Offer(uint64_t block_index, const Digest& name) {
  ASSIGN_OR_RETURN(const bool known, writer_->PutKnown(block_index, name));
  if (known) Report();
  return !known;
}

Status ChunkStore::Put(const Frame& frame) {
  RETURN_IF_ERROR(writer_->Put(frame.block_index, frame.record));
  Report();
  return Status();
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
