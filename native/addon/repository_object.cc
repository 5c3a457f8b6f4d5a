#include "repository_object.h"

#include <fcntl.h>

#include <cerrno>
#include <climits>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collection.h"
#include "jobs.h"
#include "manifest_object.h"
#include "move_options.h"
#include "session_object.h"
#include "source/nbd_source.h"
#include "source/raw_source.h"
#include "stream/restore_difference.h"
#include "stream/restore_disk.h"
#include "target/nbd_target.h"
#include "target/raw_image.h"
#include "target/raw_target.h"
#include "target/target_failure.h"
#include "values.h"
#include "verification_object.h"

namespace blockferry {
namespace {

using State = std::shared_ptr<RepositoryState>;
using Info = Napi::CallbackInfo;

Napi::Value Throw(Napi::Env env, const Status& failure) {
  napi_throw(env, ErrorOf(env, failure));
  return {};
}

Napi::Value GetInfo(const State& state, const Info& info) {
  const Status open = state->CheckOpen();
  if (!open.ok()) return Throw(info.Env(), open);
  return InfoObject(info.Env(), state->repository->info());
}

Napi::Value StartDrawIncarnation(const State& state, const Info& info) {
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  return StartJob<uint64_t>(
      info.Env(), [repository = state->repository] { return repository->DrawIncarnation(); },
      NumberOf);
}

Napi::Value GetVmPseudonym(const State& state, const Info& info) {
  const Status open = state->CheckOpen();
  if (!open.ok()) return Throw(info.Env(), open);
  const Result<std::string> identity = TextOf(info[0], "identity");
  if (!identity.ok()) return Throw(info.Env(), identity.status());
  const Status key = state->repository->CheckKey();
  if (!key.ok()) return Throw(info.Env(), key);
  return Napi::String::New(info.Env(), state->repository->naming().Pseudonym(*identity));
}

Result<SessionOptions> ReadSessionOptions(const Napi::Value& value) {
  SessionOptions options;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "options"));
  ASSIGN_OR_RETURN(options.vm_pseudonym, fields.Text("vm_pseudonym"));
  if (!IsPseudonym(options.vm_pseudonym)) {
    return Unfit(fields.NameOf("vm_pseudonym"), "it is not 32 hex digits");
  }
  ASSIGN_OR_RETURN(options.point_id, fields.Text("point_id"));
  if (!IsFileId(options.point_id)) {
    return Unfit(fields.NameOf("point_id"), "it is not 1 to 64 of A-Z a-z 0-9 . _ -");
  }
  ASSIGN_OR_RETURN(options.token.incarnation, fields.Integer("incarnation"));
  ASSIGN_OR_RETURN(options.token.number, fields.Integer("number"));
  return options;
}

// A job's value has to be copyable, a session is not.
using SharedSession = std::shared_ptr<std::unique_ptr<Session>>;

Napi::Value StartOpenSession(const State& state, const Info& info) {
  Result<SessionOptions> options = ReadSessionOptions(info[0]);
  if (!options.ok()) return Rejected(info.Env(), options.status());
  // Only now: a getter among the options may close the repository.
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  return StartJob<SharedSession>(
      info.Env(),
      [repository = state->repository, options = *options]() -> Result<SharedSession> {
        ASSIGN_OR_RETURN(std::unique_ptr<Session> session, repository->OpenSession(options));
        return std::make_shared<std::unique_ptr<Session>>(std::move(session));
      },
      [state, repository = state->repository](Napi::Env env, const SharedSession& session) {
        return SessionObject(env, state, repository, std::move(*session));
      });
}

Napi::Value StartListManifests(const State& state, const Info& info) {
  const Status open = state->CheckOpen();
  if (!open.ok()) return Rejected(info.Env(), open);
  std::optional<std::string> vm_pseudonym;
  if (!info[0].IsNull()) {
    const Result<std::string> text = TextOf(info[0], "vmPseudonym");
    if (!text.ok()) return Rejected(info.Env(), text.status());
    if (!IsPseudonym(*text)) {
      return Rejected(info.Env(), Unfit("vmPseudonym", "it is neither null nor 32 hex digits"));
    }
    vm_pseudonym = *text;
  }
  return StartJob<std::vector<ListedManifest>>(
      info.Env(),
      [repository = state->repository, vm_pseudonym]() -> Result<std::vector<ListedManifest>> {
        RETURN_IF_ERROR(repository->CheckKey());
        return repository->ListManifests(vm_pseudonym);
      },
      [](Napi::Env env, const std::vector<ListedManifest>& listed) -> Napi::Value {
        Napi::Array array = Napi::Array::New(env);
        for (const ListedManifest& one : listed) {
          // A dropped one is no backup any more.
          if (!one.is_dropped) array.Set(array.Length(), ListedManifestObject(env, one));
        }
        return array;
      });
}

struct TargetOptions {
  enum class Kind { kRaw, kNbd };
  Kind kind = Kind::kRaw;
  std::string address;
};

Result<TargetOptions> ReadTargetOptions(const Napi::Value& value) {
  TargetOptions target;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "target"));
  ASSIGN_OR_RETURN(const std::string kind, fields.Text("kind"));
  if (kind == "raw") {
    target.kind = TargetOptions::Kind::kRaw;
    ASSIGN_OR_RETURN(target.address, fields.Text("path"));
  } else if (kind == "nbd") {
    target.kind = TargetOptions::Kind::kNbd;
    ASSIGN_OR_RETURN(target.address, fields.Text("uri"));
  } else {
    return Unfit(fields.NameOf("kind"), "it is neither raw nor nbd");
  }
  return target;
}

Result<std::unique_ptr<DiskTarget>> OpenTarget(const TargetOptions& options, uint64_t size_bytes,
                                               const Cancel* cancel) {
  if (options.kind == TargetOptions::Kind::kRaw) {
    return RawTarget::Create(options.address, size_bytes);
  }
  return NbdTarget::Open(options.address, size_bytes, cancel);
}

// On a thread of its own.
Result<Nothing> Restore(Repository* repository, const StoredDisk& disk,
                        const TargetOptions& options, TaskState* task) {
  ASSIGN_OR_RETURN(const std::unique_ptr<DiskTarget> target,
                   OpenTarget(options, disk.size_bytes, &task->cancel));
  RETURN_IF_ERROR(RestoreDisk(repository, disk, target.get(), &task->cancel, &task->progress));
  RETURN_IF_ERROR(target->Finish());
  return Nothing();
}

// Work on the repository as it is when the work begins.
using Work = std::function<Result<Nothing>(Repository*, TaskState*)>;

Napi::Value StartWork(const State& state, const Info& info, const Work& work) {
  // Only now: a getter among the arguments may have closed the repository.
  const Status open = state->CheckOpen();
  if (!open.ok()) return Throw(info.Env(), open);
  std::shared_ptr<TaskState> task = state->NewTask();
  const Napi::Promise result = StartJob<Nothing>(
      info.Env(),
      [repository = state->repository, work, task]() -> Result<Nothing> {
        RETURN_IF_ERROR(repository->Refresh());
        return work(repository.get(), task.get());
      },
      [task](Napi::Env env, const Nothing&) { return ProgressObject(env, task->progress); },
      std::shared_ptr<Cancel>(task, &task->cancel));
  return TaskObject(info.Env(), task, result);
}

Result<StoredDisk> ReadDisk(const Napi::Value& value) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "disk"));
  return ReadStoredDisk(fields);
}

Napi::Value StartRestoreDisk(const State& state, const Info& info) {
  const Result<StoredDisk> disk = ReadDisk(info[0]);
  if (!disk.ok()) return Throw(info.Env(), disk.status());
  const Result<TargetOptions> target = ReadTargetOptions(info[1]);
  if (!target.ok()) return Throw(info.Env(), target.status());
  return StartWork(state, info,
                   [disk = *disk, target = *target](Repository* repository, TaskState* task) {
                     return Restore(repository, disk, target, task);
                   });
}

// An image that is restored over: a raw file by its descriptor, any other by an NBD export.
struct ImageOptions {
  bool is_raw = false;
  int fd = -1;
  std::string address;
};

Result<ImageOptions> ReadImageOptions(const Napi::Value& value) {
  ImageOptions image;
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, "image"));
  ASSIGN_OR_RETURN(const std::string kind, fields.Text("kind"));
  image.is_raw = kind == "raw";
  if (image.is_raw) {
    ASSIGN_OR_RETURN(const uint64_t fd, fields.Integer("fd"));
    if (fd > INT_MAX) return Unfit(fields.NameOf("fd"), "it is no descriptor");
    image.fd = static_cast<int>(fd);
    ASSIGN_OR_RETURN(image.address, fields.Text("path"));
  } else if (kind == "nbd") {
    ASSIGN_OR_RETURN(image.address, fields.Text("uri"));
  } else {
    return Unfit(fields.NameOf("kind"), "it is neither raw nor nbd");
  }
  return image;
}

// Another descriptor of the same open file, so that its locks stay whoever closes first.
Result<int> Duplicate(const ImageOptions& image) {
  const int fd = fcntl(image.fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return TargetFailure("open again", image.address, errno);
  return fd;
}

Result<Nothing> RestoreRawDifference(Repository* repository, const StoredDisk& disk,
                                     const ImageOptions& options, TaskState* task) {
  ASSIGN_OR_RETURN(const int fd, Duplicate(options));
  RawImage image(fd, options.address);
  const auto open_source = [&]() -> Result<std::unique_ptr<BlockSource>> {
    ASSIGN_OR_RETURN(const int source_fd, Duplicate(options));
    return RawSource::OfFile(source_fd, options.address, disk.size_bytes, &task->cancel);
  };
  RETURN_IF_ERROR(RestoreDifference(repository, repository->naming(), disk, open_source, &image,
                                    &task->cancel, &task->progress));
  RETURN_IF_ERROR(image.Finish());
  return Nothing();
}

Result<Nothing> RestoreNbdDifference(Repository* repository, const StoredDisk& disk,
                                     const ImageOptions& options, TaskState* task) {
  ASSIGN_OR_RETURN(const std::unique_ptr<NbdTarget> image,
                   NbdTarget::OpenImage(options.address, &task->cancel));
  const auto open_source = [&]() -> Result<std::unique_ptr<BlockSource>> {
    NbdOptions nbd;
    nbd.uri = options.address;
    nbd.unreachable_reason = reason::kTargetWriteFailed;
    nbd.stalled_reason = reason::kTargetWriteFailed;
    return NbdSource::Open(nbd, "", image->size_bytes(), &task->cancel);
  };
  RETURN_IF_ERROR(RestoreDifference(repository, repository->naming(), disk, open_source,
                                    image.get(), &task->cancel, &task->progress));
  RETURN_IF_ERROR(image->Finish());
  return Nothing();
}

Napi::Value StartRestoreDifference(const State& state, const Info& info) {
  const Result<StoredDisk> disk = ReadDisk(info[0]);
  if (!disk.ok()) return Throw(info.Env(), disk.status());
  const Result<ImageOptions> image = ReadImageOptions(info[1]);
  if (!image.ok()) return Throw(info.Env(), image.status());
  const auto restore = image->is_raw ? RestoreRawDifference : RestoreNbdDifference;
  return StartWork(
      state, info,
      [disk = *disk, image = *image, restore](Repository* repository, TaskState* task) {
        return restore(repository, disk, image, task);
      });
}

void Close(const State& state) {
  state->closed = true;
  for (const std::weak_ptr<TaskState>& weak : state->tasks) {
    if (const std::shared_ptr<TaskState> task = weak.lock()) task->cancel.Request();
  }
  state->tasks.clear();
  // Work that still runs holds the repository until it has ended.
  state->repository.reset();
}

}  // namespace

Status RepositoryState::CheckOpen() const {
  if (closed) return Unfit("repository", "it was closed; open it again");
  return Status();
}

std::shared_ptr<TaskState> RepositoryState::NewTask() {
  auto task = std::make_shared<TaskState>();
  tasks.remove_if([](const std::weak_ptr<TaskState>& ended) { return ended.expired(); });
  tasks.push_back(task);
  return task;
}

Napi::Object InfoObject(Napi::Env env, const RepositoryInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("repository_id", HexOf(info.repository_id));
  object.Set("format_version", NumberOf(env, info.format_version));
  object.Set("block_size_bytes", NumberOf(env, info.block_size));
  object.Set("encrypted", info.is_encrypted);
  object.Set("pack_count", NumberOf(env, info.pack_count));
  object.Set("stored_bytes", NumberOf(env, info.stored));
  object.Set("chunk_count", NumberOf(env, info.chunk_count));
  return object;
}

Napi::Object RepositoryObject(Napi::Env env, std::shared_ptr<Repository> repository) {
  auto state = std::make_shared<RepositoryState>();
  state->repository = std::move(repository);

  Napi::Object object = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*method)(const State&, const Info&)) {
    object.Set(name,
               Napi::Function::New(
                   env, [state, method](const Info& info) { return method(state, info); }, name));
  };
  add("info", GetInfo);
  add("drawIncarnation", StartDrawIncarnation);
  add("vmPseudonym", GetVmPseudonym);
  add("openSession", StartOpenSession);
  add("listManifests", StartListManifests);
  add("removeBackup", StartRemoveBackup);
  add("undeleteBackup", StartUndeleteBackup);
  add("holdBackup", StartHoldBackup);
  add("releaseBackup", StartReleaseBackup);
  add("advanceTime", StartAdvanceTime);
  add("listOpenSessions", StartListOpenSessions);
  add("collect", StartCollect);
  add("restoreDisk", StartRestoreDisk);
  add("restoreDifference", StartRestoreDifference);
  add("openVerification", OpenVerification);
  object.Set("close", Napi::Function::New(
                          env, [state](const Info&) { Close(state); }, "close"));
  return object;
}

}  // namespace blockferry
