// The checkpoints of the disks of one point in time, as files in the folder of the VM's sessions.
//
// A checkpoint is replaced as a whole or not at all, and one that is damaged is as good as none.
// See checkpoint_format.h for the bytes.
#ifndef BLOCKFERRY_REPOSITORY_CHECKPOINT_FILES_H_
#define BLOCKFERRY_REPOSITORY_CHECKPOINT_FILES_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "repository/pack_writer.h"

namespace blockferry {

// A whole checkpoint.
struct CheckpointFile {
  ByteVector state;  // As DiskWriter reads it.
  std::vector<PackId> pack_ids;
};

class CheckpointFiles {
 public:
  // `folder` is that of all sessions of the VM. New files are first written in `session_folder`.
  CheckpointFiles(FileSystem& files, const Naming* naming, std::string folder,
                  std::string session_folder, std::string point_id);

  // Durable when it returns. NOT_FOUND when the session's folder is gone: it is fenced.
  Status Write(std::string_view disk_id, Bytes state, std::span<const PackId> pack_ids);

  // If there is one.
  std::optional<CheckpointFile> Load(std::string_view disk_id);
  static std::optional<CheckpointFile> Read(FileSystem& files, const std::string& path);

  // Those of this point, as far as they can be.
  void Remove();

  // Whether a file of the sessions' folder is a checkpoint of this point, or of another one.
  bool IsOwn(std::string_view file_name) const;
  static bool IsCheckpoint(std::string_view file_name);

 private:
  std::string Path(std::string_view disk_id) const;
  std::string NewPath(std::string_view disk_id) const;

  FileSystem& files_;
  const Naming* naming_;
  std::string folder_;
  std::string session_folder_;
  std::string point_id_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_CHECKPOINT_FILES_H_
