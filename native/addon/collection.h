// Removing backups and collecting a repository, as JavaScript sees it.
#ifndef BLOCKFERRY_ADDON_COLLECTION_H_
#define BLOCKFERRY_ADDON_COLLECTION_H_

#include <napi.h>

#include <memory>

#include "repository_object.h"

namespace blockferry {

// Methods of a repository object.
Napi::Value StartRemoveBackup(const std::shared_ptr<RepositoryState>& state,
                              const Napi::CallbackInfo& info);
Napi::Value StartUndeleteBackup(const std::shared_ptr<RepositoryState>& state,
                                const Napi::CallbackInfo& info);
Napi::Value StartHoldBackup(const std::shared_ptr<RepositoryState>& state,
                            const Napi::CallbackInfo& info);
Napi::Value StartReleaseBackup(const std::shared_ptr<RepositoryState>& state,
                               const Napi::CallbackInfo& info);
Napi::Value StartAdvanceTime(const std::shared_ptr<RepositoryState>& state,
                             const Napi::CallbackInfo& info);
Napi::Value StartListOpenSessions(const std::shared_ptr<RepositoryState>& state,
                                  const Napi::CallbackInfo& info);
Napi::Value StartCollect(const std::shared_ptr<RepositoryState>& state,
                         const Napi::CallbackInfo& info);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_COLLECTION_H_
