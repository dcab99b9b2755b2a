#include "segments.h"

#include <algorithm>
#include <cmath>

namespace hpformer {
namespace {

Segments cut(int64_t steps, int64_t count, int64_t length) { return {count, length, count * length - steps}; }

}  // namespace

Status segmentsOf(const Spec& spec, int64_t steps, Segments* out) {
  if (steps < 1) return {StatusCode::shape, "a sequence needs at least one step, got " + std::to_string(steps)};
  const int64_t base = spec.segmentSteps > 0 ? spec.segmentSteps : steps;  // T of the reference
  if (spec.rule == SegmentRule::paper) {
    const int64_t c = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(std::log(static_cast<double>(base)))));
    const int64_t b = std::max<int64_t>(1, steps / c);
    const int64_t s = std::max(c + 1, (steps + b - 1) / b);
    *out = cut(steps, s, b);
    return {};
  }
  const int64_t n0 = (static_cast<int64_t>(std::floor(std::log(static_cast<double>(base)))) + 1) * spec.times;
  if (steps < n0) {
    // Only a fixed T can meet a shorter sequence in 'valid' mode; otherwise the published rule divides by zero.
    if (spec.over == Over::valid && spec.segmentSteps > 0) {
      *out = cut(steps, steps, 1);
      return {};
    }
    return {StatusCode::shape, "expected at least " + std::to_string(n0) + " steps for " + std::to_string(n0) +
                                   " segments, got " + std::to_string(steps)};
  }
  const int64_t b = steps / n0;
  if (steps % n0 == 0) {
    *out = cut(steps, n0, b);
    return {};
  }
  if (spec.over == Over::padded && spec.segmentSteps > 0) {
    const int64_t below = steps - steps % n0, above = below + n0;
    return {StatusCode::shape, "expected a number of steps that " + std::to_string(n0) + " segments divide (" +
                                   std::to_string(below) + " or " + std::to_string(above) + "), got " +
                                   std::to_string(steps)};
  }
  *out = cut(steps, steps / b + 1, b);
  return {};
}

}  // namespace hpformer
