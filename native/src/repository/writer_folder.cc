#include "repository/writer_folder.h"

#include "repository/repository_format.h"
#include "repository/writer_name.h"

namespace blockferry {

using repository_format::kFencedSuffix;

bool IsWriterFolder(const FolderEntry& entry) {
  return entry.is_folder && !entry.name.empty() && WriterOf(entry.name) == entry.name;
}

Status FenceWriter(FileSystem& files, const std::string& parent, std::string_view writer,
                   std::string_view by) {
  const std::string path = parent + "/" + std::string(writer);
  // A name of its own: a crash may have kept that of an earlier rename.
  const std::string fenced = path + "." + std::string(by.substr(kTokenTextSize + 1));
  const Status renamed = files.RenameNoReplace(path, fenced + kFencedSuffix);
  return renamed.Is(reason::kNotFound) ? Status() : renamed;
}

Status RemoveWriterFolder(FileSystem& files, const std::string& folder) {
  const Result<std::vector<FolderEntry>> entries = files.List(folder);
  if (entries.status().Is(reason::kNotFound)) return {};
  RETURN_IF_ERROR(entries);
  for (const FolderEntry& entry : *entries) {
    RETURN_IF_ERROR(RemoveIfThere(files, folder + "/" + entry.name));
  }
  const Status removed = files.RemoveFolder(folder);
  return removed.Is(reason::kNotFound) ? Status() : removed;
}

Status RemoveFencedWriters(FileSystem& files, const std::string& parent) {
  ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, files.List(parent));
  for (const FolderEntry& entry : entries) {
    const bool is_fenced =
        entry.is_folder && !WriterOf(entry.name).empty() && entry.name.ends_with(kFencedSuffix);
    if (is_fenced) RETURN_IF_ERROR(RemoveWriterFolder(files, parent + "/" + entry.name));
  }
  return {};
}

}  // namespace blockferry
