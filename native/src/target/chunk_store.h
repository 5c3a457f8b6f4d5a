// Stores the blocks of one disk in a repository session.
#ifndef BLOCKFERRY_TARGET_CHUNK_STORE_H_
#define BLOCKFERRY_TARGET_CHUNK_STORE_H_

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/progress.h"
#include "repository/disk_writer.h"
#include "repository/map_reader.h"
#include "repository/session.h"
#include "target/block_target.h"

namespace blockferry {

// Maps of the same disk in backups that are there, each absent without a backup or without data.
struct DiskRoots {
  std::optional<Digest> base;     // What blocks are kept from.
  std::optional<Digest> earlier;  // What patches are laid over: the newest one.
};

class ChunkStore final : public BlockTarget {
 public:
  // Continues at the checkpoint of the same point and base. The session and `progress` outlive the
  // store. REQUIRES: the disks of the roots have this size.
  static Result<std::unique_ptr<ChunkStore>> Open(Session* session, const std::string& disk_id,
                                                  uint64_t size_bytes, const DiskRoots& roots,
                                                  Progress* progress);

  // Blocks before this one are stored already.
  uint64_t resumed_at_block() const { return writer_->resumed_at(); }

  void FindLacking(std::span<const Digest> names, std::span<bool> lacks) override;
  std::optional<BaseChunk> ReadBase(uint64_t block_index, MutableBytes plain) override;
  Result<bool> Offer(uint64_t block_index, const Digest& name) override;
  Result<bool> Put(const Frame& frame) override;
  Status Keep(uint64_t first_block, uint64_t end_block) override;
  void CountRead(uint64_t bytes) override;
  Result<std::optional<Digest>> Seal() override;

 private:
  ChunkStore(Session* session, std::unique_ptr<DiskWriter> writer, MapReader base,
             MapReader earlier, Progress* progress);
  void Report();

  Session* session_;
  std::unique_ptr<DiskWriter> writer_;
  MapReader base_;
  // Of the threads that make patches.
  std::mutex earlier_mutex_;
  MapReader earlier_;
  Progress* progress_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_TARGET_CHUNK_STORE_H_
