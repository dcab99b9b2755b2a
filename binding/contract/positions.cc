#include "positions.h"

#include <algorithm>
#include <cmath>

namespace hpformer {
namespace {

const double kLogBase = std::log(10000.0);

bool isSinusoidal(const Spec& spec) {
  return spec.positions == PositionKind::interleaved || spec.positions == PositionKind::halves;
}

bool isPaddingPosition(const Spec& spec, int64_t position) {
  return spec.embedding == EmbeddingKind::tokens && position == spec.padding;
}

}  // namespace

double positionValue(const Spec& spec, int64_t position, int64_t column) {
  const int64_t d = spec.hidden;
  const double p = static_cast<double>(position);
  if (spec.positions == PositionKind::interleaved) {
    const int64_t j = column / 2;
    const double angle = p * std::exp(-2.0 * static_cast<double>(j) * kLogBase / static_cast<double>(d));
    return column % 2 == 0 ? std::sin(angle) : std::cos(angle);
  }
  if (spec.positions == PositionKind::halves) {
    const int64_t half = d / 2;
    if (column >= 2 * half) return 0.0;  // the one spare column of an odd width
    const int64_t j = column % half;
    const double angle =
        p * std::exp(-static_cast<double>(j) * kLogBase / static_cast<double>(std::max<int64_t>(1, half - 1)));
    return column < half ? std::sin(angle) : std::cos(angle);
  }
  return 0.0;
}

void positionRow(const Spec& spec, const Weights& weights, int64_t position, double* out) {
  const int64_t d = spec.hidden;
  if (spec.positions == PositionKind::learned) {
    // Tables are filled in whole blocks, which may reach past the last trained row; nobody reads what stands there.
    if (position >= static_cast<int64_t>(weights.positions.size()) / d) {
      std::fill(out, out + d, 0.0);
      return;
    }
    const double* row = weights.positions.data() + position * d;
    std::copy(row, row + d, out);
    return;
  }
  if (!isSinusoidal(spec) || isPaddingPosition(spec, position)) {
    std::fill(out, out + d, 0.0);
    return;
  }
  for (int64_t c = 0; c < d; ++c) out[c] = positionValue(spec, position, c);
}

void positionsOf(const Spec& spec, const int32_t* tokens, int64_t steps, int64_t* out) {
  if (spec.embedding != EmbeddingKind::tokens) {
    for (int64_t t = 0; t < steps; ++t) out[t] = t;
    return;
  }
  int64_t count = 0;
  for (int64_t t = 0; t < steps; ++t) {
    out[t] = isPadding(spec, tokens, t) ? spec.padding : spec.padding + ++count;
  }
}

double inputScale(const Spec& spec) {
  return isSinusoidal(spec) && spec.scaleInput ? std::sqrt(static_cast<double>(spec.hidden)) : 1.0;
}

}  // namespace hpformer
