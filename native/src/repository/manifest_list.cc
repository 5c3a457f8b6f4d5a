#include "repository/manifest_list.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>

#include "repository/manifest_format.h"
#include "repository/manifest_mark.h"
#include "repository/repository_format.h"

namespace blockferry {
namespace {

using namespace repository_format;

struct ManifestFileName {
  uint64_t sequence = 0;
  std::string backup_id;
};

std::optional<ManifestFileName> ParseManifestName(std::string_view name) {
  std::string_view suffix = kManifestSuffix;
  size_t hyphen = name.find('-');
  if (!name.ends_with(suffix) || hyphen == std::string_view::npos || hyphen < kSequenceDigits) {
    return std::nullopt;
  }
  ManifestFileName parsed;
  auto [end, error] = std::from_chars(name.data(), name.data() + hyphen, parsed.sequence);
  if (error != std::errc() || end != name.data() + hyphen) return std::nullopt;
  parsed.backup_id = name.substr(hyphen + 1, name.size() - hyphen - 1 - suffix.size());
  if (!IsFileId(parsed.backup_id)) return std::nullopt;
  return parsed;
}

// The latest removal counts.
void SetMark(ManifestMark mark, const std::string& stem, ListedManifest* listed) {
  using Kind = ManifestMark::Kind;
  mark.stem = stem;
  if (mark.kind == Kind::kHeld) listed->is_held = true;
  if (mark.kind == Kind::kDropped) listed->is_dropped = true;
  if (mark.is_removal()) {
    listed->removed_time = std::max(listed->removed_time.value_or(0), mark.time);
  }
  listed->marks.push_back(std::move(mark));
}

// A system that reads a folder in pieces may show a file that is renamed meanwhile under neither
// name: it is listed until nothing has changed.
Result<std::vector<FolderEntry>> ListAtRest(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(std::vector<FolderEntry> before, files.List(folder));
  for (;;) {
    ASSIGN_OR_RETURN(std::vector<FolderEntry> entries, files.List(folder));
    if (entries == before) return entries;
    before = std::move(entries);
  }
}

// 0 for a name that begins with no sequence.
uint64_t SequenceOf(std::string_view name) {
  uint64_t sequence = 0;
  static_cast<void>(std::from_chars(name.data(), name.data() + name.size(), sequence));
  return sequence;
}

}  // namespace

Result<uint64_t> LastSequence(FileSystem& files, const std::string& folder) {
  const Result<std::vector<FolderEntry>> entries = ListAtRest(files, folder);
  if (entries.status().Is(reason::kNotFound)) return uint64_t{0};
  RETURN_IF_ERROR(entries);
  uint64_t last = 0;
  for (const FolderEntry& entry : *entries) {
    if (!ParseManifestName(entry.name) && !ParseManifestMark(entry.name)) continue;
    last = std::max(last, SequenceOf(entry.name));
  }
  return last;
}

Status ListManifestFolder(FileSystem& files, const std::string& folder,
                          const std::string& vm_pseudonym, const RepositoryId& repository,
                          const Naming* naming, const Digest* record_key,
                          std::vector<ListedManifest>* listed) {
  const Result<std::vector<FolderEntry>> entries = ListAtRest(files, folder);
  if (entries.status().Is(reason::kNotFound)) return {};
  RETURN_IF_ERROR(entries);
  std::vector<ListedManifest> found;
  std::map<std::string, std::vector<ManifestMark>> marks;
  for (const FolderEntry& entry : *entries) {
    std::optional<ManifestMark> mark = ParseManifestMark(entry.name);
    if (mark) marks[mark->stem].push_back(*std::move(mark));
  }
  for (const FolderEntry& entry : *entries) {
    if (!entry.name.ends_with(kManifestSuffix)) continue;
    ListedManifest one;
    one.path = folder + "/" + entry.name;
    for (const ManifestMark& mark : marks[StemOf(entry.name)]) {
      SetMark(mark, StemOf(one.path), &one);
    }
    std::optional<ManifestFileName> name = ParseManifestName(entry.name);
    Result<ByteVector> bytes = ReadWholeFile(files, one.path, manifest_format::kFileSizeMax);
    if (bytes.status().Is(reason::kNotFound)) continue;
    // Longer than a manifest can be: it is not what was written.
    if (bytes.status().Is(reason::kRepositoryDamaged)) {
      bytes = Status(reason::kManifestCorrupt, bytes.status().message());
    }
    Result<Manifest> manifest = bytes.ok() ? DecodeManifest(*bytes, repository, naming, record_key)
                                           : Result<Manifest>(bytes.status());
    if (!manifest.ok()) {
      one.damage = manifest.status();
    } else if (!name || manifest->sequence != name->sequence ||
               manifest->backup_id != name->backup_id || manifest->vm_pseudonym != vm_pseudonym) {
      one.damage = Status(reason::kManifestCorrupt,
                          "read a manifest: it does not belong where it lies; this backup cannot "
                          "be trusted, use another one or another copy");
    } else {
      one.manifest = *std::move(manifest);
    }
    if (!one.damage.ok()) {
      Metadata metadata = one.damage.metadata();
      metadata.emplace_back("path", one.path);
      one.damage = Status(one.damage.reason(), one.path + ": " + one.damage.message(), metadata);
    }
    if (name) {
      one.sequence = name->sequence;
      one.backup_id = name->backup_id;
    }
    found.push_back(std::move(one));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
  std::move(found.begin(), found.end(), std::back_inserter(*listed));
  return {};
}

}  // namespace blockferry
