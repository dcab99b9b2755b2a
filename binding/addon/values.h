// Reading JavaScript values without trust in their kind or size, and without exceptions on the hot path.
#pragma once
#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "binding/contract/status.h"

namespace hpformer::addon {

// The memory behind a typed array at this moment. A detached or out-of-bounds one has no elements.
struct View {
  void* data = nullptr;
  size_t count = 0;
  napi_typedarray_type type = napi_uint8_array;
  bool shared = false;  // in a SharedArrayBuffer: never detached, but others may write
};

template <typename T>
constexpr napi_typedarray_type arrayType() {
  if constexpr (std::is_same_v<T, float>) return napi_float32_array;
  if constexpr (std::is_same_v<T, double>) return napi_float64_array;
  if constexpr (std::is_same_v<T, int32_t>) return napi_int32_array;
}

template <typename T>
constexpr const char* arrayTypeName() {
  if constexpr (std::is_same_v<T, float>) return "Float32Array";
  if constexpr (std::is_same_v<T, double>) return "Float64Array";
  if constexpr (std::is_same_v<T, int32_t>) return "Int32Array";
}

// False when the value is no typed array. `shared` is found out only when asked for.
bool viewOf(napi_env env, napi_value value, View* out, bool askShared = false);

// Reads values one by one; the first failure stays in `status` and all later reads do nothing.
class ValueReader {
 public:
  ValueReader(napi_env env, Status* status) : env_(env), status_(status) {}

  // Null stands for a value that is absent.
  int64_t integerOf(napi_value value, const char* name, int64_t least, int64_t most);
  bool booleanOf(napi_value value, const char* name);
  template <typename T>
  T* arrayOf(napi_value value, const char* name, int64_t count, bool* shared);

  void fail(StatusCode code, const std::string& name, const std::string& what);
  napi_env env() const { return env_; }
  bool ok() const { return status_->ok(); }

 protected:
  // False for undefined and null, and after a failure.
  bool present(napi_value value);

  napi_env env_;
  Status* status_;
  std::string where_;
};

// Properties of one object.
class ObjectReader : public ValueReader {
 public:
  ObjectReader(napi_env env, napi_value object, std::string where, Status* status);

  // False when the property is undefined or null, or something failed before.
  bool get(const char* key, napi_value* out);
  int64_t integer(const char* key, int64_t least, int64_t most);
  bool boolean(const char* key);
  std::string text(const char* key);

 private:
  napi_value object_;
};

// Takes a pending JavaScript exception away; returns its message.
std::string clearException(napi_env env);
napi_value stringValue(napi_env env, const std::string& text);
std::string textOf(napi_env env, napi_value value);

}  // namespace hpformer::addon
