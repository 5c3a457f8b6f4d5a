// The folder of one writer, be it a session or a collector.
//
// Everything that a writer is about to publish lies in it, so who renames the folder away has
// fenced the writer: whatever it still creates there or renames out of there fails with NOT_FOUND,
// also when it wakes after days.
#ifndef BLOCKFERRY_REPOSITORY_WRITER_FOLDER_H_
#define BLOCKFERRY_REPOSITORY_WRITER_FOLDER_H_

#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace blockferry {

// Whether it is the folder of a writer that has not been fenced.
bool IsWriterFolder(const FolderEntry& entry);

// Renames `parent`/`writer` away; OK as well when it is not there. `by` is the name of the writer
// that does. Not durable until `parent` is synced.
Status FenceWriter(FileSystem& files, const std::string& parent, std::string_view writer,
                   std::string_view by);

// The folder with all that lies in it; OK as well when it is not there.
Status RemoveWriterFolder(FileSystem& files, const std::string& folder);

// The folders of all writers in `parent` that were fenced.
Status RemoveFencedWriters(FileSystem& files, const std::string& parent);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_WRITER_FOLDER_H_
