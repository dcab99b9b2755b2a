// The judge: every step in plain double loops, no cleverness. Ships as device 'reference'.
#pragma once
#include "request.h"
#include "spec.h"
#include "weights.h"

namespace hpformer {

// Fills every non-null output. `request.feed.lengths` and `request.step` must be resolved. Checks `cancel` between sequences.
Status runReference(const Spec& spec, const Weights& weights, const Request<double>& request, const CancelFlag& cancel);

}  // namespace hpformer
