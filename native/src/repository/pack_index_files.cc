// How the index comes by its files: reads those that are there, writes full tables, merges.
#include <algorithm>
#include <bit>
#include <map>
#include <mutex>

#include "repository/index_format.h"
#include "repository/pack_index.h"

namespace blockferry {
namespace {

using namespace index_format;

// Files whose numbers of entries are within a factor of four.
int SizeClassOf(const IndexFile& file) { return (std::bit_width(file.entry_count()) + 1) / 2; }

bool IsSmaller(const std::shared_ptr<const IndexFile>& a,
               const std::shared_ptr<const IndexFile>& b) {
  return std::pair(a->entry_count(), a->name()) < std::pair(b->entry_count(), b->name());
}

}  // namespace

void PackIndex::AddFile(std::shared_ptr<IndexFile> file) {
  std::vector<uint32_t> numbers;
  for (const IndexPack& told : file->TakePacks()) {
    const uint32_t number = packs_.Add(told.id);
    Pack& pack = packs_[number];
    if (!pack.is_indexed()) {
      SetUsable(number, false);
      pack.size = told.size;
      pack.chunk_count = told.chunk_count;
    }
    ++(file->name().empty() ? pack.scratch_file_count : pack.file_count);
    numbers.push_back(number);
  }
  file->SetNumbers(std::move(numbers));
  auto files = std::make_shared<IndexFiles>(*files_);
  files->push_back(std::move(file));
  // A name is most likely in the largest file.
  std::sort(files->begin(), files->end(),
            [](const auto& a, const auto& b) { return IsSmaller(b, a); });
  files_ = std::move(files);
}

void PackIndex::DropFile(const IndexFile* file) {
  auto files = std::make_shared<IndexFiles>(*files_);
  if (std::erase_if(*files, [&](const auto& other) { return other.get() == file; }) == 0) return;
  for (const uint32_t number : file->numbers()) {
    --(file->name().empty() ? packs_[number].scratch_file_count : packs_[number].file_count);
  }
  files_ = std::move(files);
}

void PackIndex::DropBadFiles() {
  const std::shared_ptr<const IndexFiles> files = files_;
  for (const auto& file : *files) {
    if (file->health() == IndexFile::Health::kGood) continue;
    DropFile(file.get());
    if (file->name().empty()) continue;
    passed_over_.insert(file->name());
    if (file->health() == IndexFile::Health::kDamaged) folder_.Remove(file->name());
  }
}

void PackIndex::CountLost(const std::vector<uint32_t>& numbers) {
  const bool is_lost = std::any_of(numbers.begin(), numbers.end(), [this](uint32_t number) {
    return packs_[number].is_usable && !packs_[number].is_indexed();
  });
  if (is_lost) ++lost_count_;
}

void PackIndex::ReadFiles() {
  if (!std::exchange(has_read_files_, true)) folder_.RemoveUnfinished();
  Lock lock(mutex_);
  // Losses that are counted from now on are left to the next refresh.
  refresh_mark_ = lost_count_;
  is_refreshing_ = true;
  DropBadFiles();
  std::set<std::string> known = passed_over_;
  for (const auto& file : *files_) known.insert(file->name());
  // Another program that merges removes files between the listing and the opening: the next listing
  // has the merged one.
  bool is_outdated = true;
  for (int attempt = 0; is_outdated && attempt < 3; ++attempt) {
    is_outdated = false;
    lock.unlock();
    const std::vector<std::string> names = folder_.ListForeign();
    lock.lock();
    for (const std::string& name : names) {
      if (known.contains(name) || files_->size() >= kFileCountMax) continue;
      lock.unlock();
      Result<std::shared_ptr<IndexFile>> file = folder_.Open(name);
      lock.lock();
      if (file.ok()) {
        AddFile(*std::move(file));
        known.insert(name);
      } else if (file.status().Is(reason::kNotFound)) {
        is_outdated = true;
      } else {
        known.insert(name);
        passed_over_.insert(name);
        if (file.status().Is(reason::kRepositoryDamaged)) folder_.Remove(name);
      }
    }
  }
}

// The smallest is looked at first; of two that cover the same packs every program drops the same.
std::vector<std::string> PackIndex::DropSuperfluousFiles() {
  std::vector<std::string> names;
  const std::shared_ptr<const IndexFiles> files = files_;
  for (auto at = files->rbegin(); at != files->rend(); ++at) {
    const IndexFile& file = **at;
    // Scratch files are gone tomorrow: they make no other file superfluous.
    const bool is_scratch = file.name().empty();
    const bool is_needed =
        std::any_of(file.numbers().begin(), file.numbers().end(), [&](uint32_t number) {
          const Pack& pack = packs_[number];
          const int count = pack.file_count + (is_scratch ? pack.scratch_file_count : 0);
          return pack.is_usable && count < 2;
        });
    if (is_needed) continue;
    DropFile(&file);
    if (is_scratch) continue;
    passed_over_.insert(file.name());
    names.push_back(file.name());
  }
  return names;
}

void PackIndex::Settle() {
  Lock lock(mutex_);
  const std::vector<std::string> superfluous = DropSuperfluousFiles();
  healed_count_ = refresh_mark_;
  is_refreshing_ = false;
  lock.unlock();
  for (const std::string& name : superfluous) folder_.Remove(name);
  lock.lock();
  const bool is_worth_a_file = !folder_.read_only() && table_->packs().size() >= kNewPackCountMin;
  if (is_worth_a_file && frozen_ == nullptr) Freeze();
  StartWork(lock);
}

void PackIndex::Freeze() {
  frozen_ = std::move(table_);
  table_ = std::make_unique<IndexTable>(options_.memory / 8);
}

Status PackIndex::MakeRoom(Lock& lock) {
  if (frozen_ != nullptr) {
    // Also when an earlier attempt to write it has failed.
    StartWork(lock);
    work_changed_.wait(lock, [this] { return frozen_ == nullptr || !is_working_; });
    if (frozen_ != nullptr) return write_failure_;
  }
  Freeze();
  StartWork(lock);
  return {};
}

void PackIndex::StartWork(Lock& lock) {
  if (is_working_ || (frozen_ == nullptr && ChooseMerge().empty())) return;
  is_working_ = true;
  if (options_.in_background) {
    // It has ended but for its last line.
    if (worker_.joinable()) worker_.join();
    worker_ = std::thread([this] { Work(); });
    return;
  }
  lock.unlock();
  Work();
  lock.lock();
}

void PackIndex::AwaitWork() {
  Lock lock(mutex_);
  work_changed_.wait(lock, [this] { return !is_working_; });
}

void PackIndex::Work() {
  Lock lock(mutex_);
  for (;;) {
    if (frozen_ != nullptr) {
      write_failure_ = WriteTable(lock);
      if (!write_failure_.ok()) break;
      continue;
    }
    const IndexFiles files = ChooseMerge();
    if (files.empty()) break;
    const Status merged = Merge(lock, files);
    is_merging_off_ = !merged.ok();
  }
  is_working_ = false;
  work_changed_.notify_all();
}

std::vector<IndexPack> PackIndex::Describe(const std::vector<uint32_t>& numbers) const {
  std::vector<IndexPack> packs;
  packs.reserve(numbers.size());
  for (const uint32_t number : numbers) {
    packs.push_back({packs_[number].id, packs_[number].size, packs_[number].chunk_count});
  }
  return packs;
}

Status PackIndex::WriteTable(Lock& lock) {
  const IndexTable& table = *frozen_;
  std::vector<uint32_t> numbers;
  for (const uint32_t number : table.packs()) {
    const Pack& pack = packs_[number];
    // Another program may have covered it meanwhile.
    const bool is_covered = pack.file_count > 0 || pack.scratch_file_count > 0;
    if (pack.is_usable && !is_covered) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  if (!numbers.empty()) {
    const std::vector<IndexPack> packs = Describe(numbers);
    lock.unlock();
    Result<std::shared_ptr<IndexFile>> file = MakeTableFile(table, numbers, packs);
    lock.lock();
    RETURN_IF_ERROR(file);
    AddFile(*std::move(file));
  }
  for (const uint32_t number : table.packs()) packs_[number].is_in_table = false;
  CountLost(table.packs());
  frozen_.reset();
  is_merging_off_ = false;
  work_changed_.notify_all();
  return {};
}

Result<std::shared_ptr<IndexFile>> PackIndex::MakeTableFile(const IndexTable& table,
                                                            const std::vector<uint32_t>& numbers,
                                                            const std::vector<IndexPack>& packs) {
  const std::vector<uint32_t> slots = table.SortedSlots();
  const auto fill = [&](IndexWriter* writer) -> Status {
    for (const uint32_t slot : slots) {
      IndexEntry entry = table.EntryAt(slot);
      entry.pack = PositionOf(numbers, entry.pack);
      if (entry.pack != kNoPosition) RETURN_IF_ERROR(writer->Add(entry));
    }
    return writer->Finish(packs);
  };
  if (!folder_.read_only()) {
    Result<std::shared_ptr<IndexFile>> file = folder_.Make(fill);
    // A program that opened the repository took it for a leftover.
    if (file.status().Is(reason::kNotFound)) file = folder_.Make(fill);
    if (file.ok()) return file;
  }
  Result<std::shared_ptr<IndexFile>> file = folder_.MakeScratch(fill);
  if (file.ok()) return file;
  return Status(file.status().reason(),
                "keep the index of a repository that cannot be written, in " +
                    options_.scratch_folder + ": " + file.status().message() +
                    "; memory for more of it is not used",
                file.status().metadata());
}

IndexFiles PackIndex::ChooseMerge() const {
  if (is_merging_off_ || is_refreshing_ || is_closing_) return {};
  // By whether they are scratch, and by size. The smallest come first.
  std::map<std::pair<bool, int>, IndexFiles> classes;
  for (const auto& file : *files_) {
    const bool is_scratch = file->name().empty();
    if (!is_scratch && folder_.read_only()) continue;
    if (file->health() != IndexFile::Health::kGood) continue;
    classes[{is_scratch, SizeClassOf(*file)}].push_back(file);
  }
  for (auto& [key, files] : classes) {
    if (files.size() < kMergeCountMin) continue;
    if (files.size() > kMergeCountMax) files.resize(kMergeCountMax);
    return files;
  }
  return {};
}

bool PackIndex::KeepOnMerging() {
  Lock lock(mutex_);
  // A table that waits does not wait for a long merge.
  if (frozen_ != nullptr) write_failure_ = WriteTable(lock);
  return !is_closing_;
}

Status PackIndex::Merge(Lock& lock, const IndexFiles& files) {
  std::vector<uint32_t> numbers;
  std::vector<uint32_t> all;
  for (const auto& file : files) {
    all.insert(all.end(), file->numbers().begin(), file->numbers().end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  for (const uint32_t number : all) {
    if (packs_[number].is_usable) numbers.push_back(number);
  }
  const std::vector<IndexPack> packs = Describe(numbers);
  lock.unlock();
  const auto fill = [&](IndexWriter* writer) -> Status {
    RETURN_IF_ERROR(MergeIndexFiles(
        files, numbers, [this] { return KeepOnMerging(); }, writer));
    return writer->Finish(packs);
  };
  const bool is_scratch = files.front()->name().empty();
  Result<std::shared_ptr<IndexFile>> merged =
      is_scratch ? folder_.MakeScratch(fill) : folder_.Make(fill);
  lock.lock();
  if (!merged.ok()) {
    for (const auto& file : files) {
      if (file->health() != IndexFile::Health::kGood) ++lost_count_;
    }
    return merged.status();
  }
  AddFile(*std::move(merged));
  for (const auto& file : files) DropFile(file.get());
  CountLost(all);
  lock.unlock();
  // The new one is durable. What is not removed now is superfluous to the next who reads the
  // folder.
  for (const auto& file : files) {
    if (!is_scratch) folder_.Remove(file->name());
  }
  lock.lock();
  return {};
}

}  // namespace blockferry
