#include "repository/reserve.h"

#include <algorithm>

#include "core/blake3.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

constexpr size_t kPieceSize = size_t{1} << 20;

// Random, since a file system may store zeroes in no room at all.
Status Fill(File& file, uint64_t size) {
  ByteVector piece(kPieceSize);
  FillRandom(piece);
  for (uint64_t left = size; left > 0;) {
    const size_t count = std::min<uint64_t>(left, piece.size());
    RETURN_IF_ERROR(file.Append(Bytes(piece).first(count)));
    left -= count;
  }
  return file.Sync();
}

}  // namespace

Status MakeReserve(FileSystem& files, const std::string& folder, uint64_t size) {
  const std::string path = folder + "/" + repository_format::kReserveFile;
  if (size == 0 || files.OpenForRead(path).ok()) return {};
  std::byte random[8];
  FillRandom(random);
  const std::string fresh = path + "-new-" + HexOf(random);
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.CreateExclusive(fresh));
  Status made = Fill(*file, size);
  if (made.ok()) made = files.Rename(fresh, path);
  if (made.ok()) return files.SyncFolder(folder);
  static_cast<void>(files.Remove(fresh));
  return made;
}

bool ReleaseReserve(FileSystem& files, const std::string& folder) {
  return files.Remove(folder + "/" + repository_format::kReserveFile).ok() &&
         files.SyncFolder(folder).ok();
}

}  // namespace blockferry
