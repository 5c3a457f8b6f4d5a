#include "values.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace blockferry {
namespace {

constexpr size_t kTextSizeMax = 4096;
constexpr double kIntegerMax = 9007199254740991.0;  // 2^53 - 1

void DropException(napi_env env) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  napi_value exception;
  napi_get_and_clear_last_exception(env, &exception);
}

Result<Napi::Value> ElementOf(const Napi::Value& array, uint32_t index, const std::string& field) {
  napi_value element;
  if (napi_get_element(array.Env(), array, index, &element) == napi_ok) {
    return Napi::Value(array.Env(), element);
  }
  DropException(array.Env());
  return Unfit(field, "it cannot be read");
}

Result<uint32_t> LengthOf(const Napi::Value& value, uint32_t count_max, const std::string& field) {
  if (!value.IsArray()) return Unfit(field, "it is not an array");
  uint32_t count = 0;
  if (napi_get_array_length(value.Env(), value, &count) != napi_ok) {
    return Unfit(field, "it cannot be read");
  }
  if (count > count_max) {
    return Unfit(field, "it has more than " + std::to_string(count_max) + " entries");
  }
  return count;
}

}  // namespace

Status Unfit(const std::string& field, const std::string& what) {
  return Status(reason::kArgumentInvalid, field + ": " + what, {{"field", field}});
}

Result<Fields> Fields::Of(const Napi::Value& value, const std::string& path) {
  if (!value.IsObject()) return Unfit(path, "it is not an object");
  return Fields(value.As<Napi::Object>(), path);
}

Result<Napi::Value> Fields::Get(const char* key) const {
  napi_value value;
  if (napi_get_named_property(object_.Env(), object_, key, &value) == napi_ok) {
    return Napi::Value(object_.Env(), value);
  }
  DropException(object_.Env());
  return Unfit(NameOf(key), "it cannot be read");
}

Result<Fields> Fields::Object(const char* key) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  return Of(value, NameOf(key));
}

Result<std::optional<Fields>> Fields::ObjectOrNull(const char* key) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  if (value.IsNull()) return std::optional<Fields>();
  ASSIGN_OR_RETURN(Fields fields, Of(value, NameOf(key)));
  return std::optional<Fields>(std::move(fields));
}

Result<std::vector<Fields>> Fields::Objects(const char* key, uint32_t count_max) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  ASSIGN_OR_RETURN(const uint32_t count, LengthOf(value, count_max, NameOf(key)));
  std::vector<Fields> objects;
  for (uint32_t i = 0; i < count; ++i) {
    const std::string field = NameOf(key) + "[" + std::to_string(i) + "]";
    ASSIGN_OR_RETURN(const Napi::Value element, ElementOf(value, i, field));
    ASSIGN_OR_RETURN(Fields fields, Of(element, field));
    objects.push_back(std::move(fields));
  }
  return objects;
}

Result<std::string> Fields::Text(const char* key) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  return TextOf(value, NameOf(key));
}

Result<uint64_t> Fields::Integer(const char* key) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  return IntegerOf(value, NameOf(key));
}

Result<std::vector<uint64_t>> Fields::Integers(const char* key, uint32_t count_max) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  ASSIGN_OR_RETURN(const uint32_t count, LengthOf(value, count_max, NameOf(key)));
  std::vector<uint64_t> integers;
  // A sparse array may claim any length, so nothing is reserved for it.
  for (uint32_t i = 0; i < count; ++i) {
    Napi::HandleScope scope(value.Env());
    const std::string name = NameOf(key);
    ASSIGN_OR_RETURN(const Napi::Value element, ElementOf(value, i, name));
    const Result<uint64_t> integer = IntegerOf(element, name);
    if (!integer.ok()) {
      return Unfit(name + "[" + std::to_string(i) + "]", "it is not an integer from 0 to 2^53 - 1");
    }
    integers.push_back(*integer);
  }
  return integers;
}

Result<std::vector<std::string>> Fields::Texts(const char* key, uint32_t count_max) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  ASSIGN_OR_RETURN(const uint32_t count, LengthOf(value, count_max, NameOf(key)));
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < count; ++i) {
    Napi::HandleScope scope(value.Env());
    const std::string name = NameOf(key) + "[" + std::to_string(i) + "]";
    ASSIGN_OR_RETURN(const Napi::Value element, ElementOf(value, i, NameOf(key)));
    ASSIGN_OR_RETURN(std::string text, TextOf(element, name));
    texts.push_back(std::move(text));
  }
  return texts;
}

Result<std::optional<Digest>> Fields::DigestOrNull(const char* key) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  if (value.IsNull()) return std::optional<Digest>();
  ASSIGN_OR_RETURN(const std::string hex, TextOf(value, NameOf(key)));
  Digest digest;
  if (!ParseHex(hex, digest)) return Unfit(NameOf(key), "it is neither null nor 64 hex digits");
  return std::optional<Digest>(digest);
}

Result<ByteVector> Fields::Bytes(const char* key, size_t size_max) const {
  ASSIGN_OR_RETURN(const Napi::Value value, Get(key));
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) !=
          napi_ok ||
      type != napi_uint8_array) {
    return Unfit(NameOf(key), "it is not a Uint8Array");
  }
  if (length > size_max) {
    return Unfit(NameOf(key), "it has more than " + std::to_string(size_max) + " bytes");
  }
  ByteVector bytes(length);
  if (length > 0) std::memcpy(bytes.data(), data, length);
  return bytes;
}

Result<std::string> TextOf(const Napi::Value& value, const std::string& field) {
  if (!value.IsString()) return Unfit(field, "it is not a string");
  size_t size = 0;
  if (napi_get_value_string_utf8(value.Env(), value, nullptr, 0, &size) != napi_ok) {
    return Unfit(field, "it cannot be read");
  }
  if (size > kTextSizeMax) {
    return Unfit(field, "it has more than " + std::to_string(kTextSizeMax) + " bytes");
  }
  std::string text(size, '\0');
  napi_get_value_string_utf8(value.Env(), value, text.data(), size + 1, &size);
  if (text.find('\0') != std::string::npos) return Unfit(field, "it contains a NUL");
  return text;
}

Result<uint64_t> IntegerOf(const Napi::Value& value, const std::string& field) {
  double number = -1;
  const bool is_number =
      value.IsNumber() && napi_get_value_double(value.Env(), value, &number) == napi_ok;
  if (!is_number || !(number >= 0) || number > kIntegerMax || number != std::floor(number)) {
    return Unfit(field, "it is not an integer from 0 to 2^53 - 1");
  }
  return static_cast<uint64_t>(number);
}

Napi::Value ErrorOf(Napi::Env env, const Status& failure) {
  Napi::Object error = Napi::Error::New(env, failure.message()).Value();
  Napi::Object metadata = Napi::Object::New(env);
  for (const auto& [key, value] : failure.metadata()) metadata.Set(key, value);
  error.Set("code", failure.reason());
  error.Set("metadata", metadata);
  return error;
}

Napi::Value NumberOf(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

Napi::Value HexOrNull(Napi::Env env, const std::optional<Digest>& digest) {
  if (!digest.has_value()) return env.Null();
  return Napi::String::New(env, HexOf(*digest));
}

Napi::Value BytesValue(Napi::Env env, blockferry::Bytes bytes) {
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, bytes.size());
  if (!bytes.empty()) std::memcpy(buffer.Data(), bytes.data(), bytes.size());
  return Napi::Uint8Array::New(env, bytes.size(), buffer, 0);
}

}  // namespace blockferry
