#include "repository/pack_index.h"

#include <algorithm>
#include <mutex>

#include "repository/index_format.h"

namespace blockferry {
namespace {

using namespace index_format;

// Marks of damaged records that are kept one by one; after so many a whole pack is marked.
constexpr size_t kDamagedCountMax = 65536;

}  // namespace

PackIndex::PackIndex(FileSystem& files, const std::string& repository_folder,
                     const RepositoryId& repository, const IndexOptions& options)
    : options_(options),
      budget_(options.memory / 8 * 3 / kPageSize),
      folder_(files, repository_folder, repository, options.scratch_folder, options.read_only,
              &budget_),
      table_(std::make_unique<IndexTable>(options.memory / 8)),
      files_(std::make_shared<const IndexFiles>()) {}

PackIndex::~PackIndex() {
  {
    Lock lock(mutex_);
    is_closing_ = true;
  }
  if (worker_.joinable()) worker_.join();
}

PackIndex::Standing PackIndex::StandingOf(const IndexEntry& entry) const {
  const Pack& pack = packs_[entry.pack];
  if (pack.is_damaged || (!damaged_.empty() && damaged_.contains({entry.pack, entry.offset}))) {
    return Standing::kDamaged;
  }
  return pack.is_tombstoned ? Standing::kTombstoned : Standing::kGood;
}

template <typename Visit>
void PackIndex::ForEach(RecordTypes types, const Digest& name, Visit visit) const {
  const IndexKey key = IndexKey::Of(name);
  bool goes_on = true;
  const auto offer = [&](const IndexEntry& entry) {
    if (!types.Has(entry.type) || !packs_[entry.pack].is_usable) return true;
    goes_on = visit(RecordPlace{entry.pack, entry.offset, entry.stored_size, entry.type},
                    StandingOf(entry));
    return goes_on;
  };
  std::shared_ptr<const IndexFiles> files;
  {
    std::shared_lock lock(mutex_);
    table_->ForEach(key, offer);
    if (goes_on && frozen_ != nullptr) frozen_->ForEach(key, offer);
    if (!goes_on || files_->empty()) return;
    files = files_;
  }
  // Files are read without the lock: a pack that is added does not wait for the storage.
  std::vector<IndexEntry> found;
  for (const auto& file : *files) {
    found.clear();
    if (!file->Find(key, &found)) ++lost_count_;
    if (found.empty()) continue;
    std::shared_lock lock(mutex_);
    for (const IndexEntry& entry : found) {
      if (!offer(entry)) return;
    }
  }
}

std::optional<RecordPlace> PackIndex::Find(RecordTypes types, const Digest& name) const {
  std::optional<RecordPlace> found;
  ForEach(types, name, [&](const RecordPlace& place, Standing standing) {
    if (standing != Standing::kGood) return true;
    found = place;
    return false;
  });
  return found;
}

bool PackIndex::Has(RecordTypes types, const Digest& name) const {
  bool has = false;
  ForEach(types, name, [&](const RecordPlace&, Standing standing) {
    has = standing != Standing::kDamaged;
    return !has;
  });
  return has;
}

std::vector<RecordPlace> PackIndex::FindAll(RecordTypes types, const Digest& name) const {
  std::vector<RecordPlace> found;
  ForEach(types, name, [&](const RecordPlace& place, Standing) {
    const bool is_new = std::none_of(found.begin(), found.end(), [&](const RecordPlace& other) {
      return other.pack == place.pack && other.offset == place.offset;
    });
    if (is_new) found.push_back(place);
    return true;
  });
  return found;
}

bool PackIndex::MarkDamaged(uint32_t pack, uint32_t offset) {
  Lock lock(mutex_);
  if (damaged_.contains({pack, offset})) return true;
  if (damaged_.size() == kDamagedCountMax) {
    packs_[pack].is_damaged = true;
    return false;
  }
  damaged_.insert({pack, offset});
  return true;
}

bool PackIndex::ClearDamaged(uint32_t pack, uint32_t offset) {
  {
    std::shared_lock lock(mutex_);
    if (!damaged_.contains({pack, offset})) return false;
  }
  Lock lock(mutex_);
  return damaged_.erase({pack, offset}) > 0;
}

void PackIndex::SetUsable(uint32_t number, bool usable) {
  Pack& pack = packs_[number];
  if (pack.is_usable == usable) return;
  pack.is_usable = usable;
  const uint64_t sign = usable ? 1 : ~uint64_t{0};
  pack_count_ += sign;
  stored_ += sign * pack.size;
  chunk_count_ += sign * pack.chunk_count;
  if (usable) return;
  // One that comes back was put there by somebody: it is looked at anew.
  pack.is_damaged = false;
  damaged_.erase(damaged_.lower_bound({number, 0}), damaged_.upper_bound({number, ~uint32_t{0}}));
}

void PackIndex::SetListed(std::byte folder, std::span<const ListedPack> listed,
                          std::vector<ListedPack>* unread, std::vector<PackId>* gone) {
  Lock lock(mutex_);
  const std::vector<uint32_t>& known = packs_.InFolder(folder);
  auto at = known.begin();
  const auto pass_over_to = [&](const PackId* id) {
    for (; at != known.end() && (id == nullptr || packs_[*at].id < *id); ++at) {
      if (!packs_[*at].is_usable) continue;
      SetUsable(*at, false);
      gone->push_back(packs_[*at].id);
    }
  };
  for (const ListedPack& one : listed) {
    pass_over_to(&one.id);
    const bool is_known = at != known.end() && packs_[*at].id == one.id;
    if (is_known) packs_[*at].is_tombstoned = one.is_tombstoned;
    if (is_known && packs_[*at].is_indexed()) {
      SetUsable(*at, true);
    } else {
      unread->push_back(one);
    }
    if (is_known) ++at;
  }
  pass_over_to(nullptr);
}

Result<uint32_t> PackIndex::AddPack(const ListedPack& listed, uint64_t size,
                                    std::span<const PackEntry> entries) {
  Lock lock(mutex_);
  if (!table_->Fits(entries.size())) RETURN_IF_ERROR(MakeRoom(lock));
  const uint32_t number = packs_.Add(listed.id);
  if (listed.is_tombstoned) packs_[number].is_tombstoned = true;
  if (!packs_[number].is_indexed()) {
    SetUsable(number, false);
    packs_[number].size = static_cast<uint32_t>(size);
    packs_[number].chunk_count = static_cast<uint32_t>(
        std::count_if(entries.begin(), entries.end(),
                      [](const PackEntry& entry) { return kWholeOrPatch.Has(entry.type); }));
    table_->AddPack(number, entries);
    packs_[number].is_in_table = true;
  }
  SetUsable(number, true);
  return number;
}

void PackIndex::SetLacking(const PackId& id) {
  Lock lock(mutex_);
  if (const std::optional<uint32_t> number = packs_.Find(id)) SetUsable(*number, false);
}

std::optional<uint32_t> PackIndex::PackNumber(const PackId& id) const {
  std::shared_lock lock(mutex_);
  const std::optional<uint32_t> number = packs_.Find(id);
  const bool stays = number && packs_[*number].is_usable && !packs_[*number].is_tombstoned;
  return stays ? number : std::nullopt;
}

PackId PackIndex::IdOf(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].id;
}

bool PackIndex::IsUsable(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].is_usable;
}

uint64_t PackIndex::entry_count() const {
  std::shared_lock lock(mutex_);
  uint64_t count = table_->entry_count() + (frozen_ == nullptr ? 0 : frozen_->entry_count());
  for (const auto& file : *files_) count += file->entry_count();
  return count;
}

size_t PackIndex::file_count() const {
  std::shared_lock lock(mutex_);
  return files_->size();
}

}  // namespace blockferry
