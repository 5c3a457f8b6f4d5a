#include "repository/mark.h"

#include <algorithm>

#include "core/endian.h"
#include "repository/name_set.h"
#include "repository/pack_format.h"

namespace blockferry {
namespace {

constexpr size_t kNamesOfAPassMin = 1024;
// Fewer than a full node has, since disks are sparse.
constexpr size_t kChunksOfANode = 16;
// Flags of the live names that are in a pack without tombstone.
constexpr NameSet::Flag kStays = NameSet::kFirst;
constexpr NameSet::Flag kStaysWhole = NameSet::kSecond;

// Only what was given stays.
void Forget(MarkedPack* pack) {
  MarkedPack fresh;
  fresh.id = pack->id;
  fresh.is_new = pack->is_new;
  fresh.tombstone = std::move(pack->tombstone);
  *pack = std::move(fresh);
}

class Marker {
 public:
  Marker(const MarkOptions& options, MapNodeSource* nodes,
         const std::function<Result<PackTable>(const PackId&)>& read_table, const Cancel* cancel,
         std::vector<MarkedPack>* packs)
      : options_(options),
        nodes_(nodes),
        read_table_(read_table),
        cancel_(cancel),
        packs_(*packs) {}

  Status Run() {
    // The packs that stay come first, so that the others can be compared with them.
    std::stable_partition(packs_.begin(), packs_.end(),
                          [](const MarkedPack& pack) { return !pack.tombstone; });
    const uint64_t per_pass =
        std::max<uint64_t>(kNamesOfAPassMin, options_.memory / NameSet::MemoryFor(2) * 2);
    pass_count_ = options_.name_count / per_pass + 1;
    node_count_ = options_.name_count / kChunksOfANode + kNamesOfAPassMin;
    for (pass_ = 0; pass_ < pass_count_;) {
      const Status passed = RunPass();
      if (passed.ok()) {
        ++pass_;
        continue;
      }
      if (!live_->full() && !visited_->full()) return passed;
      // Names are not spread as evenly as was hoped, or there are more nodes.
      (live_->full() ? pass_count_ : node_count_) *= 2;
      for (MarkedPack& pack : packs_) Forget(&pack);
      pass_ = 0;
    }
    return {};
  }

 private:
  Status RunPass() {
    options_.looked_at->Set(0);
    const uint64_t expected = options_.name_count / pass_count_;
    live_.emplace(static_cast<size_t>(expected + expected / 8 + kNamesOfAPassMin));
    visited_.emplace(static_cast<size_t>(node_count_));
    for (const MarkRoot& root : options_.roots) {
      const Status walked = Walk(root.root, root.level_count - 1);
      if (walked.ok()) continue;
      const bool is_lost = walked.Is(reason::kBlockCorrupt) || walked.Is(reason::kChunkMissing);
      if (!is_lost) return walked;
      return Status(reason::kCollectionBlocked,
                    "mark what " + root.what + " needs: " + walked.message() +
                        "; nothing is deleted as long as that is not known: remove this backup, "
                        "or bring back what it lacks",
                    {{"name", root.what}});
    }
    RETURN_IF_ERROR(
        ForEachTable([this](const PackTable& table, MarkedPack*) { return MarkBases(table); }));
    return ForEachTable([this](const PackTable& table, MarkedPack* pack) {
      Count(table, pack);
      return Status();
    });
  }

  bool IsOfThisPass(const Digest& name) const {
    // Other bytes than those that the sets look at first.
    return LoadLe<uint64_t>(name.data() + 16) % pass_count_ == pass_;
  }

  Status MarkName(const Digest& name) {
    if (!IsOfThisPass(name) || live_->Has(name)) return {};
    if (live_->full()) return Full();
    live_->Insert(name);
    return {};
  }

  static Status Full() { return Status(reason::kInternal, "mark: more names than were expected"); }

  // A node may be the same at several levels: it is walked at each.
  Status Walk(const Digest& name, unsigned level) {
    Digest key = name;
    key[8] ^= std::byte(level);
    if (visited_->full()) return Full();
    if (!visited_->Insert(key)) return {};
    RETURN_IF_ERROR(cancel_->Check());
    RETURN_IF_ERROR(MarkName(name));
    MapNode node;
    {
      std::array<std::byte, kMapNodeSizeMax> buffer;
      ASSIGN_OR_RETURN(const size_t size, nodes_->ReadNode(name, buffer));
      if (!DecodeMapNode(Bytes(buffer).first(size), kMapFanOut, &node)) {
        return Status(reason::kBlockCorrupt, "map node " + HexOf(name) + " is none");
      }
    }
    for (unsigned child = 0; child < kMapFanOut; ++child) {
      if (!node.Has(child)) continue;
      RETURN_IF_ERROR(level == 0 ? MarkName(node.names[child])
                                 : Walk(node.names[child], level - 1));
    }
    return {};
  }

  // Of every patch, also of those that nothing refers to: a session may be about to refer to one.
  Status MarkBases(const PackTable& table) {
    for (const Digest& base : table.bases) RETURN_IF_ERROR(MarkName(base));
    return {};
  }

  void Count(const PackTable& table, MarkedPack* pack) {
    options_.looked_at->Add(table.size);
    pack->size = table.size;
    pack->writer = table.writer;
    pack->live.resize(table.entries.size());
    pack->record_size = 0;
    for (size_t i = 0; i < table.entries.size(); ++i) {
      const PackEntry& entry = table.entries[i];
      pack->record_size += pack_format::kRecordHeaderSize + entry.stored_size;
      if (!IsOfThisPass(entry.name) || !live_->Has(entry.name)) continue;
      pack->live[i] = true;
      pack->live_size += pack_format::kRecordHeaderSize + entry.stored_size;
      const bool is_patch = entry.type == RecordType::kPatch;
      if (pack->tombstone) {
        if (!live_->HasFlag(entry.name, is_patch ? kStays : kStaysWhole)) {
          pack->has_last_copy = true;
        }
        continue;
      }
      live_->SetFlag(entry.name, kStays);
      if (!is_patch) live_->SetFlag(entry.name, kStaysWhole);
    }
  }

  template <typename Use>
  Status ForEachTable(Use use) {
    for (MarkedPack& pack : packs_) {
      RETURN_IF_ERROR(cancel_->Check());
      const Result<PackTable> table = read_table_(pack.id);
      if (table.status().Is(reason::kRepositoryDamaged)) {
        return Status(reason::kCollectionBlocked,
                      "mark what patches need: " + table.status().message() +
                          "; nothing is deleted as long as it is not known what lies in it: bring "
                          "the file back as it was, or move it out of the repository",
                      table.status().metadata());
      }
      RETURN_IF_ERROR(table);
      RETURN_IF_ERROR(use(*table, &pack));
    }
    return {};
  }

  const MarkOptions& options_;
  MapNodeSource* nodes_;
  const std::function<Result<PackTable>(const PackId&)>& read_table_;
  const Cancel* cancel_;
  std::vector<MarkedPack>& packs_;
  uint64_t pass_ = 0;
  uint64_t pass_count_ = 1;
  uint64_t node_count_ = 0;
  std::optional<NameSet> live_;     // Names of this pass.
  std::optional<NameSet> visited_;  // Nodes that were walked, of all passes.
};

}  // namespace

Status MarkPacks(const MarkOptions& options, MapNodeSource* nodes,
                 const std::function<Result<PackTable>(const PackId&)>& read_table,
                 const Cancel* cancel, std::vector<MarkedPack>* packs) {
  return Marker(options, nodes, read_table, cancel, packs).Run();
}

}  // namespace blockferry
