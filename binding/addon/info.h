// info() of src/native/addon.ts: what was built and what this machine offers.
#pragma once
#include <napi.h>

namespace hpformer::addon {

Napi::Value info(const Napi::CallbackInfo& call);

}  // namespace hpformer::addon
