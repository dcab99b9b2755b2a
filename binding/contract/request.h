// One batch on its way through a backend: what came in, where results go. Plain pointers, row-major, owned by the
// caller. Real is float for the CPU and CUDA backends, double for the reference.
#pragma once
#include <atomic>
#include <cstdint>

#include "status.h"

namespace hpformer {

template <typename Real>
struct Feed {
  int64_t steps = 0;               // L, the padded length of this sequence in the batch
  const Real* features = nullptr;  // [batch, steps, F]
  // [batch, steps]. Ids of steps that exist are in 0..vocabulary-1 (checked before any backend runs); beyond a
  // sequence's own length (`over: 'valid'`) they are neither checked nor read, so no backend may use them as an index.
  const int32_t* tokens = nullptr;
  const Real* values = nullptr;      // [batch, steps]
  const int32_t* lengths = nullptr;  // [batch]; never null once resolveLengths has run. Meaning by config.segments.over
};

// Null pointers are outputs nobody asked for. S is `segmentsMax`, the largest count in the batch; shorter ones are
// followed by zero rows.
template <typename Real>
struct SequenceOutputs {
  Real* pooled = nullptr;            // [batch, hidden]
  Real* keys = nullptr;              // [batch, S, hidden]
  int32_t* segments = nullptr;       // [batch]
  Real* attention = nullptr;         // one step read: [batch, layers, heads, S]; else [batch, steps, layers, heads, S]
  Real* segmentAttention = nullptr;  // [batch, S, S], row = query
  Real* intraAttention = nullptr;    // [batch, steps]
  int64_t segmentsMax = 0;
  // trace only (the unfused path)
  Real* embedded = nullptr;       // [batch, steps, hidden]
  Real* segmentPool = nullptr;    // [batch, S, hidden]
  Real* extraSegment = nullptr;   // [batch, S, hidden]
  Real* intraSegment = nullptr;   // [batch, S, hidden]
  Real* const* layers = nullptr;  // `spec.layers` pointers to [batch, steps, hidden]
  Real* encoded = nullptr;        // [batch, steps, hidden]: last layer, padding rows zeroed
};

template <typename Real>
struct Request {
  int64_t batch = 0;
  Feed<Real> feed, second;        // second: two-sequence models
  const int32_t* step = nullptr;  // [batch]; readout 'step', resolved like lengths unless readoutWeights is given
  const Real* readoutWeights = nullptr;  // [batch, steps]
  SequenceOutputs<Real> out, outSecond;
  Real* logits = nullptr;         // [batch, labels] or [batch, steps, labels]
  Real* probabilities = nullptr;  // the same
  Real* const* head = nullptr;    // trace only: after head layer j, [rows, size_j]
  bool trace = false;             // run unfused and fill the trace outputs
};

// Set by an abort; a backend looks at it between tiles and returns StatusCode::aborted.
using CancelFlag = std::atomic<bool>;

}  // namespace hpformer
