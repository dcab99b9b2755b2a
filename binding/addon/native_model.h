// NativeModel of src/native/addon.ts: one loaded model as a JavaScript object.
#pragma once
#include <napi.h>

#include <memory>

#include "environment.h"

namespace hpformer::addon {

class NativeModel : public Napi::ObjectWrap<NativeModel> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit NativeModel(const Napi::CallbackInfo& info);
  ~NativeModel() override;

 private:
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value runSync(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  Napi::Value packedBytes(const Napi::CallbackInfo& info);

  std::shared_ptr<const Model> model_;  // null once disposed
  int64_t packedBytes_ = 0;
};

// { code, message } for calls that answer at once.
Napi::Object statusObject(Napi::Env env, const Status& status);

}  // namespace hpformer::addon
