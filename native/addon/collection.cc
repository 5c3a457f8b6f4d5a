#include "collection.h"

#include <string>
#include <utility>
#include <vector>

#include "jobs.h"
#include "repository/collector.h"
#include "task.h"
#include "values.h"

namespace blockferry {
namespace {

using State = std::shared_ptr<RepositoryState>;
using Info = Napi::CallbackInfo;

constexpr uint32_t kDeadSessionCountMax = 65536;

// removeBackup(vmPseudonym, backupId) and its like.
using BackupChange = Status (Repository::*)(const std::string&, const std::string&);

Napi::Value StartChange(const State& state, const Info& info, BackupChange change) {
  const Result<std::string> vm = TextOf(info[0], "vmPseudonym");
  if (!vm.ok()) return Rejected(info.Env(), vm.status());
  const Result<std::string> backup_id = TextOf(info[1], "backupId");
  if (!backup_id.ok()) return Rejected(info.Env(), backup_id.status());
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  return StartJob<Nothing>(
      info.Env(),
      [repository = state->repository, change, vm = *vm,
       backup_id = *backup_id]() -> Result<Nothing> {
        RETURN_IF_ERROR((repository.get()->*change)(vm, backup_id));
        return Nothing();
      },
      BuildNothing);
}

Napi::Value TextsOf(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array array = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); ++i) array.Set(i, texts[i]);
  return array;
}

Result<bool> FlagOf(const Fields& fields, const char* key) {
  ASSIGN_OR_RETURN(const Napi::Value value, fields.Get(key));
  if (!value.IsBoolean()) return Unfit(fields.NameOf(key), "it is neither true nor false");
  return value.As<Napi::Boolean>().Value();
}

Result<CollectOptions> ReadCollectOptions(const Napi::Value& value) {
  CollectOptions options;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "options"));
  ASSIGN_OR_RETURN(options.token.incarnation, fields.Integer("incarnation"));
  ASSIGN_OR_RETURN(options.token.number, fields.Integer("number"));
  ASSIGN_OR_RETURN(options.undo_window, fields.Integer("undo_window_seconds"));
  ASSIGN_OR_RETURN(options.bytes_per_second, fields.Integer("bytes_per_second"));
  ASSIGN_OR_RETURN(options.dry_run, FlagOf(fields, "dry_run"));
  ASSIGN_OR_RETURN(options.dead_sessions, fields.Texts("dead_sessions", kDeadSessionCountMax));
  return options;
}

Napi::Object PacksOf(Napi::Env env, const CollectReport::Packs& packs) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("pack_count", NumberOf(env, packs.count));
  object.Set("size_bytes", NumberOf(env, packs.size));
  return object;
}

Napi::Value ReportObject(Napi::Env env, const CollectReport& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("dropped_backups", TextsOf(env, report.dropped_backups));
  object.Set("stored_bytes", NumberOf(env, report.stored));
  object.Set("live_bytes", NumberOf(env, report.live));
  object.Set("deleted", PacksOf(env, report.deleted));
  object.Set("tombstoned", PacksOf(env, report.tombstoned));
  object.Set("copied", PacksOf(env, report.copied));
  object.Set("spared", PacksOf(env, report.spared));
  object.Set("waiting", PacksOf(env, report.waiting));
  object.Set("waits_for", TextsOf(env, report.waits_for));
  return object;
}

}  // namespace

Napi::Value StartRemoveBackup(const State& state, const Info& info) {
  return StartChange(state, info, &Repository::RemoveBackup);
}

Napi::Value StartUndeleteBackup(const State& state, const Info& info) {
  return StartChange(state, info, &Repository::UndeleteBackup);
}

Napi::Value StartHoldBackup(const State& state, const Info& info) {
  return StartChange(state, info, &Repository::HoldBackup);
}

Napi::Value StartReleaseBackup(const State& state, const Info& info) {
  return StartChange(state, info, &Repository::ReleaseBackup);
}

Napi::Value StartAdvanceTime(const State& state, const Info& info) {
  if (!info[0].IsBoolean()) {
    return Rejected(info.Env(), Unfit("confirmed", "it is neither true nor false"));
  }
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  return StartJob<RepositoryTime>(
      info.Env(),
      [repository = state->repository, confirmed = info[0].As<Napi::Boolean>().Value()] {
        return repository->AdvanceTime(confirmed);
      },
      [](Napi::Env env, const RepositoryTime& time) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("now_seconds", NumberOf(env, time.now));
        object.Set("behind_by_seconds", NumberOf(env, time.behind_by));
        return object;
      });
}

Napi::Value StartListOpenSessions(const State& state, const Info& info) {
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  return StartJob<std::vector<std::string>>(
      info.Env(), [repository = state->repository] { return repository->ListOpenSessions(); },
      TextsOf);
}

Napi::Value StartCollect(const State& state, const Info& info) {
  const Result<CollectOptions> options = ReadCollectOptions(info[0]);
  const Status open = state->CheckOpen();
  if (!options.ok() || !open.ok()) {
    napi_throw(info.Env(), ErrorOf(info.Env(), options.ok() ? open : options.status()));
    return {};
  }
  std::shared_ptr<TaskState> task = state->NewTask();
  const Napi::Promise result = StartJob<CollectReport>(
      info.Env(),
      [repository = state->repository, options = *options, task] {
        return Collect(repository.get(), options, &task->cancel, &task->progress);
      },
      ReportObject, std::shared_ptr<Cancel>(task, &task->cancel));
  return TaskObject(info.Env(), task, result);
}

}  // namespace blockferry
