// A manifest as JavaScript sees it.
#ifndef BLOCKFERRY_ADDON_MANIFEST_OBJECT_H_
#define BLOCKFERRY_ADDON_MANIFEST_OBJECT_H_

#include <napi.h>

#include "repository/manifest.h"

namespace blockferry {

Napi::Value ManifestObject(Napi::Env env, const Manifest& manifest);
Napi::Value ListedManifestObject(Napi::Env env, const ListedManifest& listed);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_MANIFEST_OBJECT_H_
