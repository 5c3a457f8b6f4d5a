// A verification as JavaScript sees it.
#ifndef BLOCKFERRY_ADDON_VERIFICATION_OBJECT_H_
#define BLOCKFERRY_ADDON_VERIFICATION_OBJECT_H_

#include <napi.h>

#include <memory>

#include "repository_object.h"

namespace blockferry {

// A method of a repository object.
Napi::Value OpenVerification(const std::shared_ptr<RepositoryState>& state,
                             const Napi::CallbackInfo& info);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_VERIFICATION_OBJECT_H_
