// kernel() of src/native/addon.ts; binding/model/kernels.h lists names, parameters and shapes.
#pragma once
#include <napi.h>

namespace hpformer::addon {

Napi::Value kernelCall(const Napi::CallbackInfo& info);

}  // namespace hpformer::addon
