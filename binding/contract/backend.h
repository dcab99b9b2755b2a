// What a device must do. One Backend object is one loaded model on one device; it is immutable after creation and
// run() may be called from several threads at once.
#pragma once
#include <memory>

#include "plan.h"
#include "request.h"
#include "spec.h"
#include "weights.h"

namespace hpformer {

class Backend {
 public:
  virtual ~Backend() = default;
  // Blocks the calling thread (a runner; for runSync JavaScript's own) until the batch is done. Never throws.
  virtual Status run(const Request<float>& request, const Plan& plan, const CancelFlag& cancel) = 0;
  virtual int64_t packedBytes() const = 0;
};

}  // namespace hpformer
