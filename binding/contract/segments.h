// The cut of a sequence into segments (reference section 1; design section 2 for rule 'paper' and over 'valid').
#pragma once
#include <cstdint>

#include "spec.h"
#include "status.h"

namespace hpformer {

struct Segments {
  int64_t count = 0;    // S
  int64_t length = 0;   // b, steps in one segment
  int64_t padding = 0;  // zero rows appended after the last step: count * length - steps, 0 <= padding
};

// `steps` is L for over 'padded' and the sequence's own length for 'valid'. Fails with `shape` where the rule has no
// answer.
Status segmentsOf(const Spec& spec, int64_t steps, Segments* out);

}  // namespace hpformer
