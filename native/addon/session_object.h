// A session of a repository as JavaScript sees it.
#ifndef BLOCKFERRY_ADDON_SESSION_OBJECT_H_
#define BLOCKFERRY_ADDON_SESSION_OBJECT_H_

#include <napi.h>

#include <memory>

#include "repository/session.h"
#include "repository_object.h"

namespace blockferry {

// `owner` may have been closed in the meantime; `repository` is the session's.
Napi::Object SessionObject(Napi::Env env, std::shared_ptr<RepositoryState> owner,
                           std::shared_ptr<Repository> repository,
                           std::unique_ptr<Session> session);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_SESSION_OBJECT_H_
