#include "verification_object.h"

#include "jobs.h"
#include "move_options.h"
#include "stream/verification.h"
#include "task.h"
#include "values.h"

namespace blockferry {
namespace {

// Held by the JavaScript object and by each job. The repository is declared first, so that it ends
// after the verification.
struct VerificationState {
  VerificationState(const std::shared_ptr<RepositoryState>& state, const VerificationLimits& limits)
      : owner(state),
        repository(state->repository),
        verification(repository.get(), repository->info().chunk_count, limits) {}

  std::shared_ptr<RepositoryState> owner;
  std::shared_ptr<Repository> repository;
  Verification verification;
};

Napi::Value ReportObject(Napi::Env env, const DamageReport& report) {
  Napi::Array ranges = Napi::Array::New(env, report.ranges.size());
  for (uint32_t i = 0; i < report.ranges.size(); ++i) {
    const DamagedRange& range = report.ranges[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("offset", NumberOf(env, range.offset));
    object.Set("size_bytes", NumberOf(env, range.size));
    object.Set("reason", range.damage.reason());
    object.Set("message", range.damage.message());
    ranges.Set(i, object);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("ranges", ranges);
  object.Set("damaged_bytes", NumberOf(env, report.damaged_bytes));
  return object;
}

Napi::Value Throw(Napi::Env env, const Status& failure) {
  napi_throw(env, ErrorOf(env, failure));
  return {};
}

Napi::Value StartVerifyDisk(const std::shared_ptr<VerificationState>& state,
                            const Napi::CallbackInfo& info) {
  const auto read = [&]() -> Result<StoredDisk> {
    ASSIGN_OR_RETURN(const Fields fields, Fields::Of(info[0], "disk"));
    return ReadStoredDisk(fields);
  };
  const Result<StoredDisk> disk = read();
  if (!disk.ok()) return Throw(info.Env(), disk.status());
  // Only now: a getter of the disk may have closed the repository.
  const Status open = state->owner->CheckOpen();
  if (!open.ok()) return Throw(info.Env(), open);
  const std::shared_ptr<TaskState> task = state->owner->NewTask();
  const Napi::Promise result = StartJob<DamageReport>(
      info.Env(),
      [state, disk = *disk, task]() -> Result<DamageReport> {
        RETURN_IF_ERROR(state->repository->Refresh());
        return state->verification.VerifyDisk(disk, &task->cancel, &task->progress);
      },
      ReportObject, std::shared_ptr<Cancel>(task, &task->cancel));
  return TaskObject(info.Env(), task, result);
}

}  // namespace

Napi::Value OpenVerification(const std::shared_ptr<RepositoryState>& state,
                             const Napi::CallbackInfo& info) {
  const Result<uint64_t> bytes_per_second = IntegerOf(info[0], "bytesPerSecond");
  if (!bytes_per_second.ok()) return Throw(info.Env(), bytes_per_second.status());
  const Status open = state->CheckOpen();
  if (!open.ok()) return Throw(info.Env(), open);
  VerificationLimits limits;
  limits.bytes_per_second = *bytes_per_second;
  const auto verification = std::make_shared<VerificationState>(state, limits);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("verifyDisk", Napi::Function::New(
                               info.Env(),
                               [verification](const Napi::CallbackInfo& call) {
                                 return StartVerifyDisk(verification, call);
                               },
                               "verifyDisk"));
  return object;
}

}  // namespace blockferry
