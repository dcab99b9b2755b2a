// Embedding: features, tokens or scalars, plus positions, the embedding norm and zeroed padding rows.
#include <algorithm>

#include "binding/contract/positions.h"
#include "context.h"

namespace hpformer::cpu {

Status makeSequence(const Context& c, const Feed<float>& feed, const SequenceOutputs<float>& out, int64_t index,
                    Arena& arena, Sequence* s) {
  s->feed = &feed;
  s->out = &out;
  s->index = index;
  s->padded = feed.steps;
  s->steps = c.spec.over == Over::valid ? feed.lengths[index] : feed.steps;
  const int64_t at = index * feed.steps;
  if (feed.features) s->features = feed.features + at * c.spec.features;
  if (feed.values) s->values = feed.values + at;
  if (feed.tokens) {
    s->tokens = feed.tokens + at;
    int32_t* positions = arena.take<int32_t>(s->steps);
    const bool padded = c.spec.padding >= 0;
    int32_t next = padded ? static_cast<int32_t>(c.spec.padding) + 1 : 0;
    for (int64_t t = 0; t < s->steps; ++t)
      positions[t] = s->padding(c.spec, t) ? static_cast<int32_t>(c.spec.padding) : next++;
    s->positions = positions;
  }
  return segmentsOf(c.spec, s->steps, &s->segments);
}

namespace {

const float* positionOf(const Context& c, const Sequence& s, int64_t t) {
  return c.packed.tables->positions.row(s.positions ? s.positions[t] : t);
}

void embedRow(const Context& c, const Sequence& s, int64_t t, float* row) {
  const int64_t d = c.spec.hidden;
  if (s.padding(c.spec, t)) {
    std::fill_n(row, d, 0.0f);
    return;
  }
  if (s.tokens) {
    if (c.plan.tokenTables) {
      std::copy_n(c.packed.embedding.data() + s.tokens[t] * d, d, row);
    } else {  // the input scale once per position instead of once per vocabulary entry
      const double* weight = c.packed.weights->embedding.data() + s.tokens[t] * d;
      const float scale = static_cast<float>(inputScale(c.spec));
      for (int64_t i = 0; i < d; ++i) row[i] = static_cast<float>(weight[i]) * scale;
    }
  } else {
    std::copy_n(c.packed.embeddingBias.data(), d, row);
    c.k.axpy(s.values[t], c.packed.embedding.data(), row, d);
  }
  if (c.spec.positions != PositionKind::none) c.k.axpy(1.0f, positionOf(c, s, t), row, d);
  if (c.spec.embeddingNorm)
    c.k.layernormRow(row, c.packed.embeddingNorm.weight.data(), c.packed.embeddingNorm.bias.data(), row, d);
}

}  // namespace

namespace {

// Lanes of `count` steps; `sequence(i)` owns step i.
template <typename Owner>
void lanesOf(const Context& c, Owner sequence, const int32_t* steps, int64_t count, float* lanes, int64_t ld) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, f = c.spec.features;
  const float** rows = arena.take<const float*>(count);
  if (c.spec.embedding != EmbeddingKind::features) {
    float* buffer = arena.take<float>(count * d);
    for (int64_t i = 0; i < count; ++i) {
      embedRow(c, sequence(i), steps[i], buffer + i * d);
      rows[i] = buffer + i * d;
    }
    c.k.toLanes(rows, count, d, lanes, ld);
    return;
  }
  float* x = arena.take<float>(f * ld);
  for (int64_t i = 0; i < count; ++i) rows[i] = sequence(i).features + steps[i] * f;
  c.k.toLanes(rows, count, f, x, ld);
  Gemm g;
  c.packed.embedding.operandOf(&g, c.k);
  g.rows = d;
  g.k = f;
  g.x = x;
  g.ldx = g.ldc = ld;
  g.c = lanes;
  g.cols = count;
  g.bias = c.packed.embeddingBias.data();
  if (c.spec.positions != PositionKind::none) {
    for (int64_t i = 0; i < count; ++i) rows[i] = positionOf(c, sequence(i), steps[i]);
    c.k.toLanes(rows, count, d, lanes, ld);
    g.residual = lanes;
  }
  c.k.gemm(g);
  if (c.spec.embeddingNorm) c.k.norm(normOf(c.packed.embeddingNorm, lanes, lanes, d, ld, count));
}

}  // namespace

void embedLanes(const Context& c, const Sequence& s, const int32_t* steps, int64_t count, float* lanes, int64_t ld) {
  lanesOf(
      c, [&](int64_t) -> const Sequence& { return s; }, steps, count, lanes, ld);
}

void embedSteps(const Context& c, const Sequence* sequences, int64_t count, const int32_t* steps, float* lanes,
                int64_t ld) {
  lanesOf(
      c, [&](int64_t i) -> const Sequence& { return sequences[i]; }, steps, count, lanes, ld);
}

void embedStep(const Context& c, const Sequence& s, int64_t step, float* row) {
  if (!s.features) return embedRow(c, s, step, row);
  const int64_t d = c.spec.hidden;
  Gemm g;
  g.a = c.packed.embedding.data();
  g.rows = d;
  g.k = c.spec.features;
  g.x = s.features + step * c.spec.features;
  g.c = row;
  g.cols = 1;
  g.bias = c.packed.embeddingBias.data();
  if (c.spec.positions != PositionKind::none) g.residual = positionOf(c, s, step);
  c.k.matvec(g);
  if (c.spec.embeddingNorm) c.k.normRow(normOf(c.packed.embeddingNorm, row, row, d, 1, 1));
}

void embedRows(const Context& c, const Sequence& s, const int32_t* steps, int64_t count, float* rows) {
  const int64_t d = c.spec.hidden;
  if (!s.features) {
    for (int64_t i = 0; i < count; ++i) embedRow(c, s, steps[i], rows + i * d);
    return;
  }
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t tile = c.k.tile;
  float* lanes = arena.take<float>(d * tile);
  float** to = arena.take<float*>(tile);
  for (int64_t from = 0; from < count; from += tile) {
    const int64_t n = std::min(tile, count - from);
    embedLanes(c, s, steps + from, n, lanes, tile);
    for (int64_t i = 0; i < n; ++i) to[i] = rows + (from + i) * d;
    c.k.fromLanes(lanes, tile, n, d, to);
  }
}

NormLanes normOf(const PackedNorm& p, const float* x, float* y, int64_t channels, int64_t ld, int64_t cols) {
  NormLanes n;
  n.form = p.form;
  n.weight = p.weight.data();
  n.bias = p.bias.data();
  n.mean = p.mean.data();
  n.variance = p.variance.data();
  n.x = x;
  n.y = y;
  n.channels = channels;
  n.ld = ld;
  n.cols = cols;
  return n;
}

}  // namespace hpformer::cpu
