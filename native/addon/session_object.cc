#include "session_object.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "diff/block_plan.h"
#include "diff/changed_block_map.h"
#include "jobs.h"
#include "manifest_object.h"
#include "move_options.h"
#include "source/nbd_source.h"
#include "source/raw_source.h"
#include "stream/memory_channel.h"
#include "stream/pipeline.h"
#include "target/chunk_store.h"

namespace blockferry {
namespace {

constexpr uint32_t kDiskCountMax = 4096;
constexpr size_t kBodySizeMax = 16 * 1024 * 1024;

// Held by the JavaScript object and by each job of the session. The repository is
// declared first, so that it ends after the session.
struct SessionState {
  std::shared_ptr<Repository> repository;
  std::unique_ptr<Session> session;

  // The rest but `mutex` and `moving` belongs to the JavaScript thread.
  std::shared_ptr<RepositoryState> owner;
  std::list<std::weak_ptr<TaskState>> tasks;
  bool aborted = false;

  std::mutex mutex;
  std::condition_variable moved;
  std::set<std::string> moving;

  void EndMove(const std::string& disk_id) {
    std::lock_guard<std::mutex> lock(mutex);
    moving.erase(disk_id);
    moved.notify_all();
  }
  bool IsMoving() {
    std::lock_guard<std::mutex> lock(mutex);
    return !moving.empty();
  }
  void AwaitMoves() {
    std::unique_lock<std::mutex> lock(mutex);
    moved.wait(lock, [this] { return moving.empty(); });
  }
};

Status CheckUsable(const SessionState& state) {
  RETURN_IF_ERROR(state.owner->CheckOpen());
  if (state.aborted) return Unfit("session", "it was aborted; open another one");
  return Status();
}

Result<std::unique_ptr<BlockSource>> OpenSource(const MoveOptions& options, const Cancel* cancel) {
  if (options.source == MoveOptions::SourceKind::kRaw) {
    return RawSource::Open(options.address, options.size_bytes, cancel);
  }
  NbdOptions nbd;
  nbd.uri = options.address;
  nbd.stall_timeout_ms = options.stall_timeout_ms;
  return NbdSource::Open(nbd, options.bitmap, options.size_bytes, cancel);
}

Result<ChangedBlockMap> ReadChangedBlocks(const MoveOptions& options) {
  switch (options.changed) {
    case MoveOptions::ChangedKind::kAll:
      return ChangedBlockMap::All();
    case MoveOptions::ChangedKind::kBitmap:
      return ChangedBlockMap::FromSource();
    case MoveOptions::ChangedKind::kExtents:
      return ChangedBlockMap::FromExtents(options.extents, options.size_bytes);
  }
  return ChangedBlockMap::All();
}

struct MovedDisk {
  std::optional<Digest> root;
  uint64_t resumed_at_bytes = 0;
};

// Sets up the stages of one disk and moves it. On a thread of its own.
Result<MovedDisk> Move(const MoveOptions& options, Session* session, TaskState* task) {
  task->progress.size_bytes.Set(options.size_bytes);
  ASSIGN_OR_RETURN(const ChangedBlockMap changed, ReadChangedBlocks(options));
  ASSIGN_OR_RETURN(const std::unique_ptr<BlockSource> source, OpenSource(options, &task->cancel));
  BlockPlan plan(source.get(), &changed);
  ASSIGN_OR_RETURN(const DiskTotals totals, plan.Count());
  task->progress.allocated_bytes.Set(totals.allocated_bytes);
  task->progress.changed_bytes.Set(totals.changed_bytes);

  const auto root_of = [](const std::optional<StoredDisk>& disk) {
    return disk.has_value() ? disk->root : std::nullopt;
  };
  ASSIGN_OR_RETURN(
      const std::unique_ptr<ChunkStore> target,
      ChunkStore::Open(session, options.disk_id, options.size_bytes,
                       {root_of(options.base), root_of(options.earlier)}, &task->progress));
  MovedDisk moved;
  moved.resumed_at_bytes = std::min(target->resumed_at_block() * kBlockSize, options.size_bytes);
  task->progress.position_bytes.Set(moved.resumed_at_bytes);
  plan.StartAt(target->resumed_at_block());

  MemoryChannel channel(target.get());
  Repository& repository = session->repository();
  std::optional<WriterKey> writer_key;
  if (repository.record_key() != nullptr) writer_key.emplace(*repository.record_key());
  ASSIGN_OR_RETURN(
      moved.root,
      MoveDiskInParallel({source.get(), &plan, &repository.naming(), options.compression, &channel,
                          &task->cancel, &task->progress, writer_key ? &*writer_key : nullptr}));
  return moved;
}

Napi::Value MovedDiskObject(Napi::Env env, const MovedDisk& moved, const Progress& progress) {
  Napi::Object object = ProgressObject(env, progress);
  object.Set("root", HexOrNull(env, moved.root));
  object.Set("resumed_at_bytes", NumberOf(env, moved.resumed_at_bytes));
  return object;
}

// The state is looked at after the options: a getter among them may abort or close.
Result<MoveOptions> BeginMove(SessionState* state, const Napi::Value& value) {
  ASSIGN_OR_RETURN(MoveOptions options, ReadMoveOptions(value));
  RETURN_IF_ERROR(CheckUsable(*state));
  std::lock_guard<std::mutex> lock(state->mutex);
  if (!state->moving.insert(options.disk_id).second) {
    return Unfit("options.disk_id", "this disk is being moved already");
  }
  return options;
}

Napi::Value StartMove(const std::shared_ptr<SessionState>& state, const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Result<MoveOptions> options = BeginMove(state.get(), info[0]);
  if (!options.ok()) {
    napi_throw(env, ErrorOf(env, options.status()));
    return {};
  }
  std::shared_ptr<TaskState> task = state->owner->NewTask();
  state->tasks.remove_if([](const auto& ended) { return ended.expired(); });
  state->tasks.push_back(task);
  const Napi::Promise result = StartJob<MovedDisk>(
      env,
      [state, task, options = *std::move(options)] {
        Result<MovedDisk> moved = Move(options, state->session.get(), task.get());
        state->EndMove(options.disk_id);
        return moved;
      },
      [task](Napi::Env e, const MovedDisk& moved) {
        return MovedDiskObject(e, moved, task->progress);
      },
      std::shared_ptr<Cancel>(task, &task->cancel));
  return TaskObject(env, task, result);
}

Result<CommitOptions> ReadCommitOptions(const Napi::Value& value) {
  CommitOptions options;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "options"));
  ASSIGN_OR_RETURN(options.backup_id, fields.Text("backup_id"));
  ASSIGN_OR_RETURN(options.base_backup_id, fields.Text("base_backup_id"));
  ASSIGN_OR_RETURN(const std::vector<Fields> disks, fields.Objects("disks", kDiskCountMax));
  for (const Fields& disk_fields : disks) {
    ManifestDisk disk;
    ASSIGN_OR_RETURN(disk.disk_id, disk_fields.Text("disk_id"));
    ASSIGN_OR_RETURN(const StoredDisk stored, ReadStoredDisk(disk_fields));
    disk.root = stored.root;
    disk.size = stored.size_bytes;
    options.disks.push_back(std::move(disk));
  }
  ASSIGN_OR_RETURN(options.body, fields.Bytes("body", kBodySizeMax));
  ASSIGN_OR_RETURN(options.lock_duration, fields.Integer("lock_seconds"));
  return options;
}

Result<CommitOptions> BeginCommit(SessionState* state, const Napi::Value& value) {
  ASSIGN_OR_RETURN(CommitOptions options, ReadCommitOptions(value));
  RETURN_IF_ERROR(CheckUsable(*state));
  if (state->IsMoving()) return Unfit("session", "a disk is still being moved; await it first");
  return options;
}

Napi::Value StartCommit(const std::shared_ptr<SessionState>& state,
                        const Napi::CallbackInfo& info) {
  Result<CommitOptions> options = BeginCommit(state.get(), info[0]);
  if (!options.ok()) return Rejected(info.Env(), options.status());
  return StartJob<Manifest>(
      info.Env(),
      [state, options = *std::move(options)] { return state->session->Commit(options); },
      ManifestObject);
}

Napi::Value StartAbort(const std::shared_ptr<SessionState>& state, const Napi::CallbackInfo& info) {
  state->aborted = true;
  for (const std::weak_ptr<TaskState>& weak : state->tasks) {
    if (const std::shared_ptr<TaskState> task = weak.lock()) task->cancel.Request();
  }
  return StartJob<Nothing>(
      info.Env(),
      [state]() -> Result<Nothing> {
        state->AwaitMoves();
        RETURN_IF_ERROR(state->session->Abort());
        return Nothing();
      },
      BuildNothing);
}

}  // namespace

Napi::Object SessionObject(Napi::Env env, std::shared_ptr<RepositoryState> owner,
                           std::shared_ptr<Repository> repository,
                           std::unique_ptr<Session> session) {
  auto state = std::make_shared<SessionState>();
  state->repository = std::move(repository);
  state->session = std::move(session);
  state->owner = std::move(owner);

  using Info = Napi::CallbackInfo;
  Napi::Object object = Napi::Object::New(env);
  object.Set("moveDisk",
             Napi::Function::New(
                 env, [state](const Info& info) { return StartMove(state, info); }, "moveDisk"));
  object.Set("commit",
             Napi::Function::New(
                 env, [state](const Info& info) { return StartCommit(state, info); }, "commit"));
  object.Set("abort",
             Napi::Function::New(
                 env, [state](const Info& info) { return StartAbort(state, info); }, "abort"));
  return object;
}

}  // namespace blockferry
