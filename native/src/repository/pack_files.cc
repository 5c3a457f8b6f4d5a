#include "repository/pack_files.h"

namespace blockferry {

Result<std::shared_ptr<File>> PackFiles::Open(const std::string& path) {
  std::lock_guard lock(mutex_);
  for (auto at = open_.begin(); at != open_.end(); ++at) {
    if (at->first != path) continue;
    open_.splice(open_.begin(), open_, at);
    return open_.front().second;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.OpenForRead(path));
  open_.emplace_front(path, std::move(file));
  if (open_.size() > open_max_) open_.pop_back();
  return open_.front().second;
}

void PackFiles::Close(const std::string& path) {
  std::lock_guard lock(mutex_);
  open_.remove_if([&](const auto& entry) { return entry.first == path; });
}

}  // namespace blockferry
