// The door to JavaScript: exactly the functions of src/native/addon.ts.
#include <napi.h>

#include <memory>
#include <new>

#include "environment.h"
#include "info.h"
#include "kernel_call.h"
#include "load_job.h"
#include "native_model.h"
#include "pin.h"

namespace hpformer::addon {
namespace {

Napi::Value createModel(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  if (!call[0].IsObject() || !call[1].IsObject() || !call[2].IsObject() || !call[3].IsFunction()) {
    throw Napi::TypeError::New(env, "createModel: expected a spec, weights, options and a callback");
  }
  auto job = std::make_unique<LoadJob>();
  try {
    job->read(env, call[0], call[1], call[2]);
  } catch (const std::bad_alloc&) {
    job->status = {StatusCode::memory, "the model's weights could not be copied"};
  }
  job->hold(env, call[3]);
  Environment::of(env).start(std::move(job), loadQueue());
  return env.Undefined();
}

// node-addon-api lets other exceptions than its own through, and they would end the process.
template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& call) {
  try {
    return Function(call);
  } catch (const std::bad_alloc&) {
    throw Napi::Error::New(call.Env(), "hpformer: out of memory");
  }
}

Napi::Object start(Napi::Env env, Napi::Object exports) {
  pinLibrary();
  auto* environment = new Environment(env);
  env.SetInstanceData(environment);
  environment->modelClass = Napi::Persistent(NativeModel::define(env));
  exports.Set("info", Napi::Function::New<guarded<info>>(env, "info"));
  exports.Set("createModel", Napi::Function::New<guarded<createModel>>(env, "createModel"));
  exports.Set("kernel", Napi::Function::New<guarded<kernelCall>>(env, "kernel"));
  return exports;
}

NODE_API_MODULE(hpformer, start)

}  // namespace
}  // namespace hpformer::addon
