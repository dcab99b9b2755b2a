#include "values.h"

#include <cmath>

namespace hpformer::addon {

bool viewOf(napi_env env, napi_value value, View* out) {
  bool isTyped = false;
  if (napi_is_typedarray(env, value, &isTyped) != napi_ok || !isTyped) return false;
  napi_value buffer;
  size_t offset = 0;
  if (napi_get_typedarray_info(env, value, &out->type, &out->count, &out->data, &buffer, &offset) != napi_ok) {
    clearException(env);
    return false;
  }
  bool plain = true;
  out->shared = napi_is_arraybuffer(env, buffer, &plain) == napi_ok && !plain;
  if (!out->data) out->count = 0;
  return true;
}

ObjectReader::ObjectReader(napi_env env, napi_value object, std::string where, Status* status)
    : env_(env), object_(object), where_(std::move(where)), status_(status) {
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env, object, &type) != napi_ok || type != napi_object) {
    if (status_->ok()) *status_ = {StatusCode::type, where_ + ": expected an object"};
  }
}

void ObjectReader::fail(StatusCode code, const std::string& key, const std::string& what) {
  if (status_->ok()) *status_ = {code, where_ + (where_.empty() ? "" : ".") + key + ": " + what};
}

bool ObjectReader::get(const char* key, napi_value* out) {
  if (!status_->ok()) return false;
  napi_valuetype type = napi_undefined;
  if (napi_get_named_property(env_, object_, key, out) != napi_ok || napi_typeof(env_, *out, &type) != napi_ok) {
    fail(StatusCode::type, key, clearException(env_));
    return false;
  }
  return type != napi_undefined && type != napi_null;
}

bool ObjectReader::has(const char* key) {
  napi_value value;
  return get(key, &value);
}

int64_t ObjectReader::integer(const char* key, int64_t least, int64_t most) {
  napi_value value;
  double number = std::nan("");
  if (!get(key, &value) || napi_get_value_double(env_, value, &number) != napi_ok ||
      !(number >= static_cast<double>(least) && number <= static_cast<double>(most)) || number != std::floor(number)) {
    fail(StatusCode::range, key, "expected an integer from " + std::to_string(least) + " to " + std::to_string(most) +
                                     ", got " + std::to_string(number));
    return least;
  }
  return static_cast<int64_t>(number);
}

bool ObjectReader::boolean(const char* key) {
  napi_value value;
  bool result = false;
  if (!get(key, &value) || napi_get_value_bool(env_, value, &result) != napi_ok) {
    fail(StatusCode::type, key, "expected a boolean");
  }
  return result;
}

std::string ObjectReader::text(const char* key) {
  napi_value value;
  napi_valuetype type = napi_undefined;
  if (!get(key, &value) || napi_typeof(env_, value, &type) != napi_ok || type != napi_string) {
    fail(StatusCode::type, key, "expected a string");
    return {};
  }
  return textOf(env_, value);
}

template <typename T>
T* ObjectReader::arrayOf(napi_value value, const std::string& name, int64_t count, bool* shared) {
  if (!status_->ok()) return nullptr;
  View view;
  if (!viewOf(env_, value, &view) || view.type != arrayType<T>()) {
    fail(StatusCode::type, name, std::string("expected a ") + arrayTypeName<T>());
    return nullptr;
  }
  if (count < 0 || view.count != static_cast<size_t>(count)) {
    fail(StatusCode::shape, name, "expected " + std::to_string(count) + " elements, got " + std::to_string(view.count) +
                                      (view.count == 0 ? " (is the buffer detached?)" : ""));
    return nullptr;
  }
  if (shared) *shared = view.shared;
  return static_cast<T*>(view.data);
}

template <typename T>
T* ObjectReader::array(const char* key, int64_t count, bool required, bool* shared) {
  napi_value value;
  if (!get(key, &value)) {
    if (required) fail(StatusCode::input, key, std::string("expected a ") + arrayTypeName<T>() + ", got nothing");
    return nullptr;
  }
  return arrayOf<T>(value, key, count, shared);
}

template float* ObjectReader::array(const char*, int64_t, bool, bool*);
template double* ObjectReader::array(const char*, int64_t, bool, bool*);
template int32_t* ObjectReader::array(const char*, int64_t, bool, bool*);
template float* ObjectReader::arrayOf(napi_value, const std::string&, int64_t, bool*);
template double* ObjectReader::arrayOf(napi_value, const std::string&, int64_t, bool*);
template int32_t* ObjectReader::arrayOf(napi_value, const std::string&, int64_t, bool*);

std::string clearException(napi_env env) {
  bool pending = false;
  napi_value error, text;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending ||
      napi_get_and_clear_last_exception(env, &error) != napi_ok || napi_coerce_to_string(env, error, &text) != napi_ok) {
    return "the value could not be read";
  }
  return textOf(env, text);
}

napi_value stringValue(napi_env env, const std::string& text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

std::string textOf(napi_env env, napi_value value) {
  size_t size = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &size) != napi_ok) return {};
  std::string text(size + 1, '\0');
  napi_get_value_string_utf8(env, value, text.data(), text.size(), &size);
  text.resize(size);
  return text;
}

}  // namespace hpformer::addon
