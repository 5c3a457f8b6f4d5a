// The native side's entry: the functions of lib/native.ts, in its order.

#include <libnbd.h>
#include <lz4.h>
#include <napi.h>
#include <zstd.h>

#include <climits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "jobs.h"
#include "readers.h"
#include "repository/repository.h"
#include "repository_object.h"
#include "target/image_lock.h"
#include "values.h"

namespace blockferry {
namespace {

Napi::Value StartCreateRepository(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  return StartJob<RepositoryInfo>(
      info.Env(), [folder = *folder] { return Repository::Create(SystemFiles(), folder); },
      InfoObject);
}

Napi::Value StartOpenRepository(const Napi::CallbackInfo& info) {
  const Result<std::string> folder = TextOf(info[0], "folder");
  if (!folder.ok()) return Rejected(info.Env(), folder.status());
  if (!info[1].IsBoolean()) {
    return Rejected(info.Env(), Unfit("readOnly", "it is not a boolean"));
  }
  using SharedRepository = std::shared_ptr<Repository>;
  return StartJob<SharedRepository>(
      info.Env(),
      [folder = *folder,
       read_only = info[1].As<Napi::Boolean>().Value()]() -> Result<SharedRepository> {
        RepositoryLimits limits;
        limits.seal_in_background = true;
        ASSIGN_OR_RETURN(std::unique_ptr<Repository> repository,
                         Repository::Open(SystemFiles(), folder, read_only, limits));
        return SharedRepository(std::move(repository));
      },
      RepositoryObject);
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
  exports.Set("cutReaders", Napi::Function::New(env, StartCutReaders, "cutReaders"));
  exports.Set("lockImage", Napi::Function::New(env, TakeLockImage, "lockImage"));
  exports.Set("forgetCached", Napi::Function::New(env, StartForgetCached, "forgetCached"));
  exports.Set("versions", Napi::Function::New(env, GetVersions, "versions"));
  return exports;
}

}  // namespace

NODE_API_MODULE(blockferry, Initialize)

}  // namespace blockferry
