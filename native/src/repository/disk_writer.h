// Stores one disk of a session: its chunks and its map, with a checkpoint that the same point in
// time continues at after a crash. This is what the target stage writes to.
//
// Used by one thread at a time; several disks of one session may be written by several threads.
#ifndef BLOCKFERRY_REPOSITORY_DISK_WRITER_H_
#define BLOCKFERRY_REPOSITORY_DISK_WRITER_H_

#include <memory>
#include <optional>
#include <string>

#include "repository/block_geometry.h"
#include "repository/checkpoint_files.h"
#include "repository/map_reader.h"
#include "repository/map_writer.h"
#include "repository/record.h"

namespace blockferry {

class Session;

// They go on across a resume.
struct DiskCounters {
  uint64_t read = 0;         // Bytes read from the source, as the caller counted them.
  uint64_t stored = 0;       // Bytes appended to packs for this disk, map nodes included.
  uint64_t block_count = 0;  // Blocks whose content was new.
};

class DiskWriter : private MapNodeSink {
 public:
  ~DiskWriter() override;
  DiskWriter(const DiskWriter&) = delete;
  DiskWriter& operator=(const DiskWriter&) = delete;

  Session& session() { return *session_; }
  uint64_t block_count() const { return block_count_; }
  // Blocks before this one are in the map already; 0 without a checkpoint.
  uint64_t resumed_at() const { return resumed_at_; }
  const DiskCounters& counters() const { return counters_; }
  void CountRead(uint64_t bytes) { counters_.read += bytes; }

  // The block's chunk is stored unless it is present already; then the block names it.
  // REQUIRES: indexes ascend strictly over all calls; everything before `index` that is not a hole
  // was put or kept; `record` holds this block (BlockSizeAt) and is a chunk or a patch. False, and
  // nothing done, for a patch whose base is not present: then the block has to be put whole.
  Result<bool> Put(uint64_t index, const NewRecord& record);

  // The block's chunk, if it is present. False, and nothing done, when it is not: then the caller
  // has to Put it.
  Result<bool> PutKnown(uint64_t index, const Digest& name);

  // Blocks [first, end) are as in `base`, a map of the disk in the base backup; see
  // MapWriter::Keep.
  Status Keep(MapReader& base, uint64_t first, uint64_t end);

  // The map is complete; returns its root, absent for a disk without data.
  Result<std::optional<Digest>> Finish();

 private:
  friend class Session;
  DiskWriter(Session* session, std::string disk_id, uint64_t size,
             const std::optional<Digest>& base_root);

  Result<Digest> PutNode(Bytes node) override;
  // A checkpoint of everything before `next_index`, when it is due.
  Status SaveCheckpointWhenDue(uint64_t next_index);
  ByteVector EncodeState(uint64_t next_index) const;
  bool RestoreState(const CheckpointFile& checkpoint);
  Status PutIndex(uint64_t index, const Digest& name, uint64_t ordinal);

  Session* session_;
  std::string disk_id_;
  uint64_t size_;
  uint64_t block_count_;
  std::optional<Digest> base_root_;
  MapWriter map_;
  DiskCounters counters_;
  uint64_t resumed_at_ = 0;
  // The youngest pack of this session that the map refers to; see Session.
  uint64_t ordinal_max_ = 0;
  uint64_t saved_filled_count_ = 0;
  uint64_t blocks_since_saved_ = 0;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_DISK_WRITER_H_
