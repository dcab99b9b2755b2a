#include "kernel_call.h"

#include <algorithm>
#include <exception>

#include "binding/model/kernels.h"
#include "native_model.h"
#include "values.h"

namespace hpformer::addon {
namespace {

// Calls `use(name, value)` for every own property.
template <typename Use>
void each(const Napi::Value& object, Use use) {
  const Napi::Object from = object.As<Napi::Object>();
  const Napi::Array names = from.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const Napi::Value key = names.Get(i);
    use(key.ToString().Utf8Value(), from.Get(key));
  }
}

template <typename Real>
Status call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  KernelCall<Real> kernel;
  Status status;
  const auto refuse = [&](const std::string& name, const char* expected) {
    if (status.ok()) status = {StatusCode::type, kernel.name + "." + name + ": expected " + expected};
  };
  kernel.name = info[0].As<Napi::String>().Utf8Value();
  each(info[1], [&](const std::string& name, const Napi::Value& value) {
    if (!value.IsNumber()) return refuse(name, "a number");
    kernel.parameters[name] = value.As<Napi::Number>().DoubleValue();
  });
  each(info[2], [&](const std::string& name, const Napi::Value& value) {
    View view;
    if (value.IsUndefined()) return;
    if (!viewOf(env, value, &view)) return refuse(name, "a typed array");
    if (view.type == napi_int32_array) {
      kernel.integers[name] = {static_cast<const int32_t*>(view.data), static_cast<int64_t>(view.count)};
    } else if (view.type == arrayType<Real>()) {
      kernel.inputs[name] = {static_cast<const Real*>(view.data), static_cast<int64_t>(view.count)};
    } else {
      refuse(name, arrayTypeName<Real>());
    }
  });
  each(info[3], [&](const std::string& name, const Napi::Value& value) {
    View view;
    if (value.IsUndefined()) return;
    if (!viewOf(env, value, &view) || view.type != arrayType<Real>()) return refuse(name, arrayTypeName<Real>());
    kernel.outputs[name] = {static_cast<Real*>(view.data), static_cast<int64_t>(view.count)};
  });
  if (info[4].IsNumber()) kernel.device = static_cast<int>(info[4].As<Napi::Number>().Int32Value());
  View times;
  if (viewOf(env, info[5], &times) && times.type == napi_float64_array) {
    kernel.timing = {static_cast<int>(std::min<size_t>(times.count, 10000)), static_cast<double*>(times.data)};
  }
  return status.ok() ? runKernel(kernel) : status;
}

// The outputs decide: one Float64Array makes it a float64 call.
bool isWide(napi_env env, const Napi::Value& outputs) {
  bool wide = false;
  each(outputs, [&](const std::string&, const Napi::Value& value) {
    View view;
    wide = wide || (viewOf(env, value, &view) && view.type == napi_float64_array);
  });
  return wide;
}

}  // namespace

Napi::Value kernelCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString() || !info[1].IsObject() || !info[2].IsObject() || !info[3].IsObject()) {
    return statusObject(env, {StatusCode::type, "kernel: expected a name, parameters, inputs and outputs"});
  }
  try {
    return statusObject(env, isWide(env, info[3]) ? call<double>(info) : call<float>(info));
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception&) {
    return statusObject(env, {StatusCode::memory, "kernel: the call could not be prepared"});
  }
}

}  // namespace hpformer::addon
