// What a batch must satisfy before any backend sees it, and the defaults that the caller left out (design section 2).
#pragma once
#include <cstdint>
#include <vector>

#include "binding/contract/request.h"
#include "binding/contract/spec.h"
#include "binding/contract/status.h"

namespace hpformer {

// Where defaults live; kept between runs so that a warm run allocates nothing.
struct FeedDefaults {
  std::vector<int32_t> lengths, secondLengths, step;
};

// Fills lengths and step, and proves: token ids of steps that exist, ranges of lengths, step and readoutWeights in
// their mode, that the segment rule has an answer for every sequence, and that `segmentsMax` holds all counts when an
// output needs it.
template <typename Real>
Status resolve(const Spec& spec, Request<Real>* request, FeedDefaults* defaults);

// Load option nonFinite 'error', before the run: the first NaN or infinity in steps that exist.
template <typename Real>
Status refuseNonFiniteInput(const Spec& spec, const Request<Real>& request);

// The same after the run, in keys, pooled rows and logits: finite inputs whose arithmetic left the range of Real.
// Probabilities alone would not tell: that of an infinite logit is 1.
template <typename Real>
Status refuseNonFiniteResult(const Spec& spec, const Request<Real>& request);

}  // namespace hpformer
