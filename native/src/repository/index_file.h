// An index file that is open for looking names up. Nothing in it is believed before its digest was
// compared. Thread-safe, apart from TakePacks and SetNumbers.
#ifndef BLOCKFERRY_REPOSITORY_INDEX_FILE_H_
#define BLOCKFERRY_REPOSITORY_INDEX_FILE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "repository/index_entry.h"
#include "repository/index_writer.h"

namespace blockferry {

// How many directory pages all files of an index may keep in memory.
class DirectoryBudget {
 public:
  explicit DirectoryBudget(size_t page_count) : left_(static_cast<int64_t>(page_count)) {}
  bool Take() {
    if (left_.fetch_sub(1) > 0) return true;
    left_.fetch_add(1);
    return false;
  }
  void GiveBack() { left_.fetch_add(1); }

 private:
  std::atomic<int64_t> left_;
};

class IndexFile {
 public:
  enum class Health { kGood, kDamaged, kUnreachable };

  // REPOSITORY_DAMAGED when it is not a whole index file of that repository and name;
  // REPOSITORY_TOO_NEW. `budget` outlives the file.
  static Result<std::shared_ptr<IndexFile>> Open(std::unique_ptr<File> file,
                                                 const std::string& name,
                                                 const RepositoryId& repository,
                                                 DirectoryBudget* budget);
  ~IndexFile();
  IndexFile(const IndexFile&) = delete;
  IndexFile& operator=(const IndexFile&) = delete;

  // In the folder of index files; empty for one that no folder lists.
  const std::string& name() const { return name_; }
  uint64_t entry_count() const { return entry_count_; }
  uint32_t group_count() const { return static_cast<uint32_t>(fences_.size()); }
  // Until the numbers of its packs are set, it holds their ids.
  std::vector<IndexPack> TakePacks() { return std::move(packs_); }
  void SetNumbers(std::vector<uint32_t> numbers) { numbers_ = std::move(numbers); }
  const std::vector<uint32_t>& numbers() const { return numbers_; }

  // Reads every page and compares its digest.
  Status CheckAll() const;

  // Appends every entry of the key, with its pack's number of this process. False when it cannot
  // tell; then health() is not good any more, and the file is of no use.
  bool Find(const IndexKey& key, std::vector<IndexEntry>* found) const;
  Health health() const { return health_; }

  // All entries of a group, with their packs' positions in this file. `buffer` is only reused.
  Status ReadGroup(uint32_t group, ByteVector* buffer, std::vector<IndexEntry>* entries) const;

 private:
  IndexFile(std::unique_ptr<File> file, std::string name, DirectoryBudget* budget)
      : file_(std::move(file)), name_(std::move(name)), budget_(budget) {}
  Status ReadEnd(const RepositoryId& repository);
  uint32_t PageCountOf(uint32_t group) const;
  // Is it that page, whole? Says how many entries, or fences, it has. Its digest is overwritten.
  Result<size_t> CheckPage(MutableBytes page, uint32_t number, uint16_t kind,
                           size_t count_max) const;
  Status ReadPage(uint32_t number, uint16_t kind, size_t count_max, MutableBytes page,
                  size_t* count) const;
  Result<const std::byte*> Directory(uint32_t group, MutableBytes buffer) const;
  Status FindInGroup(uint32_t group, const IndexKey& key, std::vector<IndexEntry>* found) const;
  Status FindInPage(uint32_t number, const IndexKey& key, std::vector<IndexEntry>* found) const;
  Status TakeEntry(const std::byte* at, IndexEntry* entry) const;
  Status Damaged(const std::string& what) const;

  std::unique_ptr<File> file_;
  std::string name_;
  DirectoryBudget* budget_;
  IndexFileId id_{};
  uint64_t entry_count_ = 0;
  uint32_t entry_page_count_ = 0;
  uint32_t pack_count_ = 0;
  std::vector<uint32_t> fences_;  // Of the groups.
  std::vector<IndexPack> packs_;
  std::vector<uint32_t> numbers_;
  // Directory pages that were read already, as far as the budget goes; null otherwise.
  std::unique_ptr<std::atomic<const std::byte*>[]> directories_;
  mutable std::atomic<Health> health_ = Health::kGood;
};

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_INDEX_FILE_H_
