#pragma once
#include "binding/contract/request.h"
#include "binding/cpu/packed.h"

namespace hpformer::cpu {

// Blocks until the batch is done on up to `threads` threads, the caller's among them.
Status runBatch(const Packed& packed, const Request<float>& request, const Plan& plan, const CancelFlag& cancel,
                int threads);

}  // namespace hpformer::cpu
