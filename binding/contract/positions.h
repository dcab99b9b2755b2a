// Position vectors (reference sections 3.2 and 4), shared by all backends: angles in double, rounded at most once, by
// the caller.
#pragma once
#include <cstdint>

#include "spec.h"
#include "weights.h"

namespace hpformer {

// One element of a sinusoidal table. Meaningless (0) for other kinds.
double positionValue(const Spec& spec, int64_t position, int64_t column);

// Writes the `hidden` values added to a step at `position`: zeros for kind 'none' and for the padding position of
// tokens.
void positionRow(const Spec& spec, const Weights& weights, int64_t position, double* out);

// The position of each of `steps` steps of one sequence. Tokens: padding + number of non-padding tokens so far, and
// `padding` itself for a padding token (without a padding id that is 0, 1, 2, …). Other embeddings (`tokens` null): the
// index.
void positionsOf(const Spec& spec, const int32_t* tokens, int64_t steps, int64_t* out);

// True for a token whose row is kept at zero.
inline bool isPadding(const Spec& spec, const int32_t* tokens, int64_t t) {
  return spec.embedding == EmbeddingKind::tokens && spec.padding >= 0 && tokens[t] == spec.padding;
}

// Whether the embedding is multiplied by sqrt(hidden) before positions are added.
double inputScale(const Spec& spec);

}  // namespace hpformer
