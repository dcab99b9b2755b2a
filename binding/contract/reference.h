// The judge: every step in plain double loops, no cleverness. Ships as device 'reference'.
// What it fixes beyond the formulas, for every backend to match:
// - A step at or beyond its sequence's own length (over 'valid') is never read and every output there is 0.
// - Padding tokens run through the layers like any row (as published) and become 0 in `encoded`; readout sees the zero.
//   `attention` has their weights like those of other steps.
// - A readout weight of zero means that the step is not read. `attention` with readoutWeights covers all steps.
#pragma once
#include "request.h"
#include "spec.h"
#include "weights.h"

namespace hpformer {

// Fills every non-null output. `request.feed.lengths` and `request.step` must be resolved. Checks `cancel` between
// sequences and now and then between steps. Never throws.
Status runReference(const Spec& spec, const Weights& weights, const Request<double>& request, const CancelFlag& cancel);

}  // namespace hpformer
