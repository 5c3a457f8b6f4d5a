// JavaScript values as plain C++ values and back. JavaScript thread only.
//
// Whatever comes in may be of any type, a proxy, or an object whose getters throw: a
// value that does not fit is ARGUMENT_INVALID with the name of the field, never a crash
// and never a pending exception.
#ifndef BLOCKFERRY_ADDON_VALUES_H_
#define BLOCKFERRY_ADDON_VALUES_H_

#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/blake3.h"
#include "core/bytes.h"
#include "core/status.h"

namespace blockferry {

// ARGUMENT_INVALID for one field.
Status Unfit(const std::string& field, const std::string& what);

// An object whose fields are read one by one; `path` names it in failures.
class Fields {
 public:
  static Result<Fields> Of(const Napi::Value& value, const std::string& path);

  // The name of a field as failures show it.
  std::string NameOf(const char* key) const { return path_ + "." + key; }

  Result<Napi::Value> Get(const char* key) const;
  Result<Fields> Object(const char* key) const;
  // Absent for null.
  Result<std::optional<Fields>> ObjectOrNull(const char* key) const;
  Result<std::vector<Fields>> Objects(const char* key, uint32_t count_max) const;
  Result<std::string> Text(const char* key) const;
  Result<std::vector<std::string>> Texts(const char* key, uint32_t count_max) const;
  // An integer from 0 to 2^53 - 1.
  Result<uint64_t> Integer(const char* key) const;
  Result<std::vector<uint64_t>> Integers(const char* key, uint32_t count_max) const;
  // 64 lower-case hex digits; absent for null.
  Result<std::optional<Digest>> DigestOrNull(const char* key) const;
  // A Uint8Array, copied.
  Result<ByteVector> Bytes(const char* key, size_t size_max) const;

 private:
  Fields(Napi::Object object, std::string path) : object_(object), path_(std::move(path)) {}

  Napi::Object object_;
  std::string path_;
};

// Text without a NUL and of at most 4096 bytes, as paths and URIs are.
Result<std::string> TextOf(const Napi::Value& value, const std::string& field);
Result<uint64_t> IntegerOf(const Napi::Value& value, const std::string& field);

// An Error with `code` and `metadata`.
Napi::Value ErrorOf(Napi::Env env, const Status& failure);

Napi::Value NumberOf(Napi::Env env, uint64_t value);
// Hex, or null when absent.
Napi::Value HexOrNull(Napi::Env env, const std::optional<Digest>& digest);
Napi::Value BytesValue(Napi::Env env, blockferry::Bytes bytes);

}  // namespace blockferry

#endif  // BLOCKFERRY_ADDON_VALUES_H_
