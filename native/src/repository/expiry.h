// Which removed backups go for good: those whose undo window is over.
//
// A window begins when a collector sees the mark of the removal, at a time that was read after the
// mark was listed. So the whole window lies before the backup however late its mark was made, and
// the time is right however late the collector writes it.
#ifndef BLOCKFERRY_REPOSITORY_EXPIRY_H_
#define BLOCKFERRY_REPOSITORY_EXPIRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/file.h"
#include "repository/manifest.h"
#include "repository/repository_time.h"

namespace blockferry {

class Repository;

class Expiry {
 public:
  // `undo_window`: seconds of repository time. `own_folder` is the collector's, which is renamed
  // away when it is fenced: manifests go through it.
  Expiry(Repository* repository, uint64_t undo_window, std::string own_folder);

  // What IsOver goes by, for a collector that changes nothing.
  Status ReadTime();
  // False for one that is held or locked, or of which that cannot be read.
  bool IsOver(const ListedManifest& listed) const;

  // Begins the windows of those that were removed since, and drops those whose window is over.
  // The names of the dropped ones.
  Result<std::vector<std::string>> DropExpired(const Cancel* cancel);

  // "<VM pseudonym>/<backup id>".
  static std::string BackupNameOf(const ListedManifest& listed);

 private:
  std::optional<uint64_t> StartOf(const ListedManifest& listed) const;
  Status Begin(ListedManifest* listed);
  // False when somebody undeleted it meanwhile.
  Result<bool> Drop(const ListedManifest& listed);
  // RUN_FENCED when a newer collector took over.
  Status CheckOwnFolder() const;
  Status RemoveManifest(const std::string& path);
  // Marks whose manifest is gone.
  Status RemoveOldMarks();

  Repository& repository_;
  FileSystem& files_;
  const uint64_t undo_window_;
  const std::string own_folder_;
  RepositoryTime time_;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_EXPIRY_H_
