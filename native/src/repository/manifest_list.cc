#include "repository/manifest_list.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "repository/manifest_format.h"
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

}  // namespace

std::string MarkOf(std::string_view manifest_path, const char* suffix) {
  return std::string(manifest_path.substr(
             0, manifest_path.size() - std::string_view(kManifestSuffix).size())) +
         suffix;
}

Status ListManifestFolder(FileSystem& files, const std::string& folder,
                          const std::string& vm_pseudonym, const RepositoryId& repository,
                          const Naming& naming, const Digest* record_key,
                          std::vector<ListedManifest>* listed) {
  Result<std::vector<FolderEntry>> entries = files.List(folder);
  if (entries.status().Is(reason::kNotFound)) return {};
  RETURN_IF_ERROR(entries);
  std::vector<ListedManifest> found;
  const auto has_mark = [&](const std::string& manifest_name, const char* suffix) {
    const FolderEntry mark{MarkOf(manifest_name, suffix), false};
    return std::binary_search(
        entries->begin(), entries->end(), mark,
        [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
  };
  for (const FolderEntry& entry : *entries) {
    if (!entry.name.ends_with(kManifestSuffix)) continue;
    ListedManifest one;
    one.is_removed = has_mark(entry.name, kRemovedSuffix);
    one.is_held = has_mark(entry.name, kHeldSuffix);
    one.path = folder + "/" + entry.name;
    std::optional<ManifestFileName> name = ParseManifestName(entry.name);
    Result<ByteVector> bytes = ReadWholeFile(files, one.path, manifest_format::kFileSizeMax);
    if (bytes.status().Is(reason::kNotFound)) continue;
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
