#include "manifest_object.h"

#include "values.h"

namespace blockferry {

Napi::Value ManifestObject(Napi::Env env, const Manifest& manifest) {
  Napi::Array disks = Napi::Array::New(env, manifest.disks.size());
  for (uint32_t i = 0; i < manifest.disks.size(); ++i) {
    Napi::Object disk = Napi::Object::New(env);
    disk.Set("disk_id", manifest.disks[i].disk_id);
    disk.Set("root", HexOrNull(env, manifest.disks[i].root));
    disk.Set("size_bytes", NumberOf(env, manifest.disks[i].size));
    disks.Set(i, disk);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("backup_id", manifest.backup_id);
  object.Set("vm_pseudonym", manifest.vm_pseudonym);
  object.Set("point_id", manifest.point_id);
  object.Set("base_backup_id", manifest.base_backup_id);
  object.Set("sequence", NumberOf(env, manifest.sequence));
  object.Set("incarnation", NumberOf(env, manifest.token.incarnation));
  object.Set("number", NumberOf(env, manifest.token.number));
  object.Set("disks", disks);
  object.Set("body", BytesValue(env, manifest.body));
  object.Set("lock_until_seconds", NumberOf(env, manifest.lock_until));
  return object;
}

Napi::Value ListedManifestObject(Napi::Env env, const ListedManifest& listed) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("held", listed.is_held);
  object.Set("removed_seconds",
             listed.removed_time ? NumberOf(env, *listed.removed_time) : env.Null());
  if (listed.manifest.has_value()) {
    object.Set("kind", "manifest");
    object.Set("manifest", ManifestObject(env, *listed.manifest));
    return object;
  }
  object.Set("kind", "damaged");
  object.Set("path", listed.path);
  object.Set("backup_id", listed.backup_id);
  object.Set("reason", listed.damage.reason());
  object.Set("message", listed.damage.message());
  return object;
}

}  // namespace blockferry
