// A repository as JavaScript sees it.
//
// Its methods are closures over the state, not over `this`: nothing is unwrapped, so that
// calling one on another object cannot reach the wrong memory.
#ifndef BLOCKFERRY_ADDON_REPOSITORY_OBJECT_H_
#define BLOCKFERRY_ADDON_REPOSITORY_OBJECT_H_

#include <napi.h>

#include <list>
#include <memory>

#include "repository/repository.h"
#include "task.h"

namespace blockferry {

// JavaScript thread only. Work on threads holds the repository itself.
struct RepositoryState {
  std::shared_ptr<Repository> repository;
  bool closed = false;
  // Tasks that close() cancels; those that ended are gone.
  std::list<std::weak_ptr<TaskState>> tasks;

  // ARGUMENT_INVALID once the repository is closed.
  Status CheckOpen() const;
  std::shared_ptr<TaskState> NewTask();
};

Napi::Object InfoObject(Napi::Env env, const RepositoryInfo& info);

Napi::Object RepositoryObject(Napi::Env env, std::shared_ptr<Repository> repository);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_REPOSITORY_OBJECT_H_
