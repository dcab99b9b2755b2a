#include "values.h"

#include <cmath>

namespace hpformer::addon {

bool viewOf(napi_env env, napi_value value, View* out, bool askShared) {
  napi_value buffer;
  size_t offset = 0;
  if (napi_get_typedarray_info(env, value, &out->type, &out->count, &out->data, askShared ? &buffer : nullptr,
                               &offset) != napi_ok) {
    clearException(env);
    return false;
  }
  bool plain = true;
  out->shared = askShared && napi_is_arraybuffer(env, buffer, &plain) == napi_ok && !plain;
  if (!out->data) out->count = 0;
  return true;
}

void ValueReader::fail(StatusCode code, const std::string& name, const std::string& what) {
  if (status_->ok()) *status_ = {code, where_ + (where_.empty() ? "" : ".") + name + ": " + what};
}

bool ValueReader::present(napi_value value) {
  napi_valuetype type = napi_undefined;
  return status_->ok() && napi_typeof(env_, value, &type) == napi_ok && type != napi_undefined && type != napi_null;
}

int64_t ValueReader::integerOf(napi_value value, const char* name, int64_t least, int64_t most) {
  double number = std::nan("");
  if (!value || napi_get_value_double(env_, value, &number) != napi_ok ||
      !(number >= static_cast<double>(least) && number <= static_cast<double>(most)) || number != std::floor(number)) {
    fail(StatusCode::range, name,
         "expected an integer from " + std::to_string(least) + " to " + std::to_string(most) + ", got " +
             std::to_string(number));
    return least;
  }
  return static_cast<int64_t>(number);
}

bool ValueReader::booleanOf(napi_value value, const char* name) {
  bool result = false;
  if (!value || napi_get_value_bool(env_, value, &result) != napi_ok) {
    fail(StatusCode::type, name, "expected a boolean");
  }
  return result;
}

template <typename T>
T* ValueReader::arrayOf(napi_value value, const char* name, int64_t count, bool* shared) {
  if (!status_->ok()) return nullptr;
  View view;
  if (!viewOf(env_, value, &view, shared != nullptr) || view.type != arrayType<T>()) {
    fail(StatusCode::type, name, std::string("expected a ") + arrayTypeName<T>());
    return nullptr;
  }
  if (count < 0 || view.count != static_cast<size_t>(count)) {
    fail(StatusCode::shape, name,
         "expected " + std::to_string(count) + " elements, got " + std::to_string(view.count) +
             (view.count == 0 ? " (is the buffer detached?)" : ""));
    return nullptr;
  }
  if (shared) *shared = view.shared;
  return static_cast<T*>(view.data);
}

template float* ValueReader::arrayOf(napi_value, const char*, int64_t, bool*);
template double* ValueReader::arrayOf(napi_value, const char*, int64_t, bool*);
template int32_t* ValueReader::arrayOf(napi_value, const char*, int64_t, bool*);

ObjectReader::ObjectReader(napi_env env, napi_value object, std::string where, Status* status)
    : ValueReader(env, status), object_(object) {
  where_ = std::move(where);
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env, object, &type) != napi_ok || type != napi_object) {
    if (status_->ok()) *status_ = {StatusCode::type, where_ + ": expected an object"};
  }
}

bool ObjectReader::get(const char* key, napi_value* out) {
  if (!status_->ok()) return false;
  if (napi_get_named_property(env_, object_, key, out) != napi_ok) {
    fail(StatusCode::type, key, clearException(env_));
    return false;
  }
  return present(*out);
}

int64_t ObjectReader::integer(const char* key, int64_t least, int64_t most) {
  napi_value value;
  return integerOf(get(key, &value) ? value : nullptr, key, least, most);
}

bool ObjectReader::boolean(const char* key) {
  napi_value value;
  return booleanOf(get(key, &value) ? value : nullptr, key);
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

std::string clearException(napi_env env) {
  bool pending = false;
  napi_value error, text;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending ||
      napi_get_and_clear_last_exception(env, &error) != napi_ok ||
      napi_coerce_to_string(env, error, &text) != napi_ok) {
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
