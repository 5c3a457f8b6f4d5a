// The native side's entry: the functions of lib/native.ts, in its order.

#include <libnbd.h>
#include <lz4.h>
#include <napi.h>
#include <zstd.h>

#include <climits>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "jobs.h"
#include "readers.h"
#include "repository/key_slot_format.h"
#include "repository/repository.h"
#include "repository/repository_keys.h"
#include "repository/reserve.h"
#include "repository/stored_check.h"
#include "repository_object.h"
#include "target/image_lock.h"
#include "task.h"
#include "values.h"

namespace blockferry {
namespace {

// { kind, bytes }
Result<Secret> ReadSecret(const Napi::Value& value, const std::string& field) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(value, field));
  ASSIGN_OR_RETURN(const std::string kind, fields.Text("kind"));
  if (kind != "passphrase" && kind != "key") {
    return Unfit(fields.NameOf("kind"), "it is neither passphrase nor key");
  }
  Secret secret;
  secret.kind = kind == "key" ? Secret::Kind::kKey : Secret::Kind::kPassphrase;
  ASSIGN_OR_RETURN(secret.bytes, fields.Bytes("bytes", key_slot_format::kPassphraseSizeMax));
  return secret;
}

Result<std::optional<Secret>> ReadSecretOrNull(const Napi::Value& value) {
  if (value.IsNull()) return std::optional<Secret>();
  ASSIGN_OR_RETURN(Secret secret, ReadSecret(value, "secret"));
  return std::optional<Secret>(std::move(secret));
}

const Secret* PointerTo(const std::optional<Secret>& secret) { return secret ? &*secret : nullptr; }

Napi::Value StartCreateRepository(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  const Result<std::optional<Secret>> secret = ReadSecretOrNull(info[1]);
  if (!secret.ok()) return Rejected(info.Env(), secret.status());
  return StartJob<RepositoryInfo>(
      info.Env(),
      [folder = *folder, secret = *secret] {
        Result<RepositoryInfo> created =
            Repository::Create(SystemFiles(), folder, PointerTo(secret));
        // Without room for it the repository is made all the same; a collection tries again.
        if (created.ok()) static_cast<void>(MakeReserve(SystemFiles(), folder, kReserveSize));
        return created;
      },
      InfoObject);
}

// How a repository is opened on a thread of its own.
using Opening = std::function<Result<std::unique_ptr<Repository>>(
    const std::string& folder, bool read_only, const RepositoryLimits& limits)>;

Napi::Value StartOpening(const Napi::CallbackInfo& info, const Opening& open) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  if (!info[1].IsBoolean()) {
    return Rejected(info.Env(), Unfit("readOnly", "it is not a boolean"));
  }
  using SharedRepository = std::shared_ptr<Repository>;
  return StartJob<SharedRepository>(
      info.Env(),
      [folder = *folder, read_only = info[1].As<Napi::Boolean>().Value(),
       open]() -> Result<SharedRepository> {
        RepositoryLimits limits;
        limits.reserve_size = kReserveSize;
        limits.seal_in_background = true;
        ASSIGN_OR_RETURN(std::unique_ptr<Repository> repository, open(folder, read_only, limits));
        return SharedRepository(std::move(repository));
      },
      RepositoryObject);
}

Napi::Value StartOpenRepository(const Napi::CallbackInfo& info) {
  const Result<std::optional<Secret>> secret = ReadSecretOrNull(info[2]);
  if (!secret.ok()) return Rejected(info.Env(), secret.status());
  return StartOpening(info, [secret = *secret](const std::string& folder, bool read_only,
                                               const RepositoryLimits& limits) {
    return Repository::Open(SystemFiles(), folder, read_only, limits, PointerTo(secret));
  });
}

Napi::Value StartOpenWithoutKey(const Napi::CallbackInfo& info) {
  return StartOpening(
      info, [](const std::string& folder, bool read_only, const RepositoryLimits& limits) {
        return Repository::OpenWithoutKey(SystemFiles(), folder, read_only, limits);
      });
}

Napi::Value StartReadIdentity(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  return StartJob<RepositoryIdentity>(
      info.Env(), [folder = *folder] { return Repository::ReadIdentity(SystemFiles(), folder); },
      [](Napi::Env env, const RepositoryIdentity& identity) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("repository_id", HexOf(identity.id));
        object.Set("encrypted", identity.is_encrypted);
        return object;
      });
}

Napi::Value StoredReportObject(Napi::Env env, const StoredReport& report) {
  Napi::Array damages = Napi::Array::New(env, report.damages.size());
  for (uint32_t i = 0; i < report.damages.size(); ++i) {
    const StoredDamage& damage = report.damages[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("path", damage.path);
    object.Set("what", damage.what);
    object.Set("offset", NumberOf(env, damage.offset));
    object.Set("size_bytes", NumberOf(env, damage.size));
    damages.Set(i, object);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("file_count", NumberOf(env, report.file_count));
  object.Set("checked_bytes", NumberOf(env, report.checked));
  object.Set("damages", damages);
  return object;
}

Napi::Value StartCheckStored(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) {
    napi_throw(info.Env(), ErrorOf(info.Env(), folder.status()));
    return {};
  }
  const Result<uint64_t> bytes_per_second = IntegerOf(info[1], "bytesPerSecond");
  if (!bytes_per_second.ok()) {
    napi_throw(info.Env(), ErrorOf(info.Env(), bytes_per_second.status()));
    return {};
  }
  auto task = std::make_shared<TaskState>();
  const Napi::Promise result = StartJob<StoredReport>(
      info.Env(),
      [folder = *folder, bytes_per_second = *bytes_per_second, task] {
        RateLimit rate_limit(bytes_per_second);
        return CheckStored(SystemFiles(), folder, &task->cancel, &task->progress, &rate_limit);
      },
      StoredReportObject, std::shared_ptr<Cancel>(task, &task->cancel));
  return TaskObject(info.Env(), task, result);
}

Napi::Value KeySlotObject(Napi::Env env, const KeySlot& slot) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("slot_id", slot.slot_id);
  object.Set("kind", slot.kind == Secret::Kind::kKey ? "key" : "passphrase");
  object.Set("label", slot.label);
  return object;
}

Napi::Value StartListKeySlots(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  return StartJob<std::vector<KeySlot>>(
      info.Env(),
      [folder = *folder]() -> Result<std::vector<KeySlot>> {
        ASSIGN_OR_RETURN(const RepositoryIdentity identity,
                         Repository::ReadIdentity(SystemFiles(), folder));
        return ListKeySlots(SystemFiles(), folder, identity.id);
      },
      [](Napi::Env env, const std::vector<KeySlot>& slots) -> Napi::Value {
        Napi::Array list = Napi::Array::New(env, slots.size());
        for (uint32_t i = 0; i < slots.size(); ++i) list.Set(i, KeySlotObject(env, slots[i]));
        return list;
      });
}

// Who changes slots has to open one: otherwise anybody who writes the folder could lock others out.
Result<RepositoryKeys> Unlock(const std::string& folder, const Secret& secret, RepositoryId* id) {
  ASSIGN_OR_RETURN(const RepositoryIdentity identity,
                   Repository::ReadIdentity(SystemFiles(), folder));
  *id = identity.id;
  return UnlockKeys(SystemFiles(), folder, identity.id, secret);
}

Napi::Value StartAddKeySlot(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  const Result<Secret> secret = ReadSecret(info[1], "secret");
  if (!secret.ok()) return Rejected(info.Env(), secret.status());
  const Result<Secret> added = ReadSecret(info[2], "added");
  if (!added.ok()) return Rejected(info.Env(), added.status());
  const Result<std::string> label = TextOf(info[3], "label");
  if (!label.ok()) return Rejected(info.Env(), label.status());
  return StartJob<KeySlot>(
      info.Env(),
      [folder = *folder, secret = *secret, added = *added, label = *label]() -> Result<KeySlot> {
        RepositoryId id;
        ASSIGN_OR_RETURN(const RepositoryKeys keys, Unlock(folder, secret, &id));
        return AddKeySlot(SystemFiles(), folder, id, keys, added, label);
      },
      KeySlotObject);
}

Napi::Value StartRemoveKeySlot(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  const Result<Secret> secret = ReadSecret(info[1], "secret");
  if (!secret.ok()) return Rejected(info.Env(), secret.status());
  const Result<std::string> slot_id = TextOf(info[2], "slotId");
  if (!slot_id.ok()) return Rejected(info.Env(), slot_id.status());
  return StartJob<Nothing>(
      info.Env(),
      [folder = *folder, secret = *secret, slot_id = *slot_id]() -> Result<Nothing> {
        RepositoryId id;
        RETURN_IF_ERROR(Unlock(folder, secret, &id));
        RETURN_IF_ERROR(RemoveKeySlot(SystemFiles(), folder, id, slot_id));
        return Nothing();
      },
      BuildNothing);
}

Napi::Value StartCutReaders(const Napi::CallbackInfo& info) {
  const Result<std::string> path = TextOf(info[0], "socketPath");
  if (!path.ok()) return Rejected(info.Env(), path.status());
  return StartJob<std::vector<Reader>>(
      info.Env(), [path = *path] { return CutReaders(path); },
      [](Napi::Env env, const std::vector<Reader>& readers) -> Napi::Value {
        Napi::Array list = Napi::Array::New(env, readers.size());
        for (uint32_t index = 0; index < readers.size(); ++index) {
          const Reader& reader = readers[index];
          Napi::Object object = Napi::Object::New(env);
          object.Set("pid", static_cast<double>(reader.pid));
          object.Set("failure", reader.failure.empty()
                                    ? env.Null()
                                    : Napi::Value(Napi::String::New(env, reader.failure)));
          list.Set(index, object);
        }
        return list;
      });
}

Result<int> ReadDescriptor(const Napi::Value& value) {
  ASSIGN_OR_RETURN(const uint64_t fd, IntegerOf(value, "fd"));
  if (fd > INT_MAX) return Unfit("fd", "it is no descriptor");
  return static_cast<int>(fd);
}

// Some calls of the kernel, which do not wait: on this thread.
Napi::Value TakeLockImage(const Napi::CallbackInfo& info) {
  const Result<int> fd = ReadDescriptor(info[0]);
  const Result<std::string> path = TextOf(info[1], "path");
  Status locked = ToStatus(fd);
  if (locked.ok()) locked = ToStatus(path);
  if (locked.ok()) locked = LockImage(*fd, *path);
  if (!locked.ok()) napi_throw(info.Env(), ErrorOf(info.Env(), locked));
  return info.Env().Undefined();
}

Napi::Value StartForgetCached(const Napi::CallbackInfo& info) {
  const Result<int> fd = ReadDescriptor(info[0]);
  if (!fd.ok()) return Rejected(info.Env(), fd.status());
  const Result<std::string> path = TextOf(info[1], "path");
  if (!path.ok()) return Rejected(info.Env(), path.status());
  return StartJob<Nothing>(
      info.Env(),
      [fd = *fd, path = *path]() -> Result<Nothing> {
        RETURN_IF_ERROR(ForgetCached(fd, path));
        return Nothing();
      },
      BuildNothing);
}

Napi::Value GetVersions(const Napi::CallbackInfo& info) {
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("node_api", NAPI_VERSION);
  nbd_handle* handle = nbd_create();
  const char* libnbd = handle == nullptr ? nullptr : nbd_get_version(handle);
  object.Set("libnbd", libnbd == nullptr ? "" : libnbd);
  if (handle != nullptr) nbd_close(handle);
  object.Set("lz4", LZ4_versionString());
  object.Set("zstd", ZSTD_versionString());
  return object;
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  Jobs::Install(env);
  exports.Set("createRepository",
              Napi::Function::New(env, StartCreateRepository, "createRepository"));
  exports.Set("openRepository", Napi::Function::New(env, StartOpenRepository, "openRepository"));
  exports.Set("openWithoutKey", Napi::Function::New(env, StartOpenWithoutKey, "openWithoutKey"));
  exports.Set("readIdentity", Napi::Function::New(env, StartReadIdentity, "readIdentity"));
  exports.Set("checkStored", Napi::Function::New(env, StartCheckStored, "checkStored"));
  exports.Set("listKeySlots", Napi::Function::New(env, StartListKeySlots, "listKeySlots"));
  exports.Set("addKeySlot", Napi::Function::New(env, StartAddKeySlot, "addKeySlot"));
  exports.Set("removeKeySlot", Napi::Function::New(env, StartRemoveKeySlot, "removeKeySlot"));
  exports.Set("cutReaders", Napi::Function::New(env, StartCutReaders, "cutReaders"));
  exports.Set("lockImage", Napi::Function::New(env, TakeLockImage, "lockImage"));
  exports.Set("forgetCached", Napi::Function::New(env, StartForgetCached, "forgetCached"));
  exports.Set("versions", Napi::Function::New(env, GetVersions, "versions"));
  return exports;
}

}  // namespace

NODE_API_MODULE(blockferry, Initialize)

}  // namespace blockferry
