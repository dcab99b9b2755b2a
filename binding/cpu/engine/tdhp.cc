// TDHP on embedded rows (reference section 1): segment pooling, extra-segment attention, intra-segment attention,
// fusion. Rows are embedded block by block, once for each of the two passes; nothing of the sequence's length is
// stored.
#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"

namespace hpformer::cpu {
namespace {

constexpr int64_t kBlock = 48;
static_assert(kBlock <= ScanBlock::kMost);

// Embeds the rows of a segment block by block and calls use(rows, count, first step, zero rows of the block). With zero
// rows in closed form a padding token is counted instead of embedded, and appended rows are left to the caller.
template <typename Use>
void eachBlock(const Context& c, const Sequence& s, int64_t segment, float* rows, Use use) {
  const int64_t d = c.spec.hidden, b = s.segments.length;
  const int64_t begin = segment * b, end = std::min(s.steps, begin + b);
  const bool closed = c.plan.zeroRowsClosedForm;
  int32_t live[kBlock];
  int64_t t = begin;
  while (t < end) {
    int64_t n = 0, zeros = 0;
    for (; t < end && n < kBlock; ++t) {
      if (closed && s.padding(c.spec, t)) {
        ++zeros;
      } else {
        live[n++] = static_cast<int32_t>(t);
      }
    }
    if (n > 0) embedRows(c, s, live, n, rows);
    use(rows, n, live, zeros);
  }
  if (!closed) {
    for (int64_t left = begin + b - std::max(begin, end); left > 0;) {
      const int64_t n = std::min(left, kBlock);
      std::fill_n(rows, n * d, 0.0f);
      use(rows, n, nullptr, 0);
      left -= n;
    }
  }
}

// Appended zero rows of a segment.
int64_t appendedRows(const Sequence& s, int64_t segment) {
  const int64_t b = s.segments.length, begin = segment * b;
  return b - std::clamp<int64_t>(s.steps - begin, 0, b);
}

void pool(const Context& c, const Sequence& s, int64_t segment, float* out) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden;
  float* rows = arena.take<float>(kBlock * d);
  const bool mean = c.spec.pooling == Pooling::mean;
  std::fill_n(out, d, mean ? 0.0f : -std::numeric_limits<float>::infinity());
  int64_t zeros = c.plan.zeroRowsClosedForm ? appendedRows(s, segment) : 0;
  eachBlock(c, s, segment, rows, [&](const float* x, int64_t n, const int32_t*, int64_t skipped) {
    zeros += skipped;
    (mean ? c.k.rowsSum : c.k.rowsMax)(x, d, n, d, out);
  });
  if (mean) {
    c.k.scaleRow(1.0f / static_cast<float>(s.segments.length), out, out, d);
  } else if (zeros > 0) {
    std::fill_n(rows, d, 0.0f);
    c.k.rowsMax(rows, d, 1, d, out);
  }
}

void intra(const Context& c, const Sequence& s, int64_t segment, const float* query, float* out) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, begin = segment * s.segments.length;
  float* rows = arena.take<float>(kBlock * d);
  const bool keep = s.out->intraAttention != nullptr;
  float* scores = arena.take<float>(keep ? s.segments.length : kBlock);
  float block[kBlock];
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
  std::fill_n(out, d, 0.0f);
  if (keep) std::fill_n(scores, s.segments.length, 0.0f);  // a zero row scores 0
  int64_t zeros = c.plan.zeroRowsClosedForm ? appendedRows(s, segment) : 0;
  eachBlock(c, s, segment, rows, [&](const float* x, int64_t n, const int32_t* steps, int64_t skipped) {
    zeros += skipped;
    if (n == 0) return;
    ScanBlock b;
    b.x = x;
    b.ldx = d;
    b.rows = n;
    b.width = d;
    b.query = query;
    b.scale = 1.0f / std::sqrt(static_cast<float>(d));
    b.scores = block;
    b.maximum = &maximum;
    b.sum = &sum;
    b.acc = out;
    c.k.scanBlock(b);
    for (int64_t i = 0; keep && steps && i < n; ++i) scores[steps[i] - begin] = block[i];
  });
  if (zeros > 0) {  // each adds e^0 to the denominator and nothing else
    const float top = maximum > 0 ? maximum : 0;
    const float shrink = sum > 0 || sum != sum ? std::exp(maximum - top) : 0.0f;
    sum = sum * shrink + static_cast<float>(zeros) * std::exp(-top);
    if (shrink != 1.0f) c.k.scaleRow(shrink, out, out, d);
    maximum = top;
  }
  c.k.scaleRow(1.0f / sum, out, out, d);
  const int64_t real = s.segments.length - appendedRows(s, segment);
  if (keep) storeIntraAttention(s, scores, begin, real, maximum, sum);
}

}  // namespace

void storeIntraAttention(const Sequence& s, const float* scores, int64_t from, int64_t count, float maximum,
                         float sum) {
  float* out = s.out->intraAttention + s.index * s.padded + from;
  for (int64_t i = 0; i < count; ++i) out[i] = std::exp(scores[i] - maximum) / sum;
}

void storeSegmentRows(const Context& c, const Sequence& s, const float* rows, float* to) {
  if (!to) return;
  const int64_t d = c.spec.hidden, count = s.segments.count, most = s.out->segmentsMax;
  to += s.index * most * d;
  std::copy_n(rows, count * d, to);
  std::fill_n(to + count * d, (most - count) * d, 0.0f);
}

Status tdhpExplicit(const Context& c, const Sequence& s, float* keys, int threads) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, count = s.segments.count;
  float* pooled = arena.take<float>(count * d);
  float* extra = arena.take<float>(count * d);
  float* inside = arena.take<float>(count * d);
  float* p = arena.take<float>(count * count);
  const auto share = [&](auto&& body) { shareOut(c, count, threads, body); };
  share([&](int64_t i) { pool(c, s, i, pooled + i * d); });
  if (c.cancelled()) return {StatusCode::aborted, "aborted"};
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t r = 0; r < count; ++r) p[i * count + r] = c.k.dot(pooled + i * d, pooled + r * d, d);
    c.k.softmaxRow(p + i * count, count, 1.0f / std::sqrt(static_cast<float>(d)));
    c.k.rowsMix(pooled, d, count, d, p + i * count, extra + i * d);
  }
  share([&](int64_t i) { intra(c, s, i, extra + i * d, inside + i * d); });
  if (c.cancelled()) return {StatusCode::aborted, "aborted"};

  const int64_t tile = c.k.tile;
  float* x = arena.take<float>(2 * d * tile);
  float* y = arena.take<float>(d * tile);
  const float** from = arena.take<const float*>(tile);
  float** to = arena.take<float*>(tile);
  for (int64_t at = 0; at < count; at += tile) {
    const int64_t n = std::min(tile, count - at);
    for (int64_t i = 0; i < n; ++i) from[i] = extra + (at + i) * d;
    c.k.toLanes(from, n, d, x, tile);
    for (int64_t i = 0; i < n; ++i) from[i] = inside + (at + i) * d;
    c.k.toLanes(from, n, d, x + d * tile, tile);
    Gemm g;
    c.packed.fusion.operandOf(&g, c.k);
    g.rows = d;
    g.k = 2 * d;
    g.x = x;
    g.ldx = g.ldc = tile;
    g.c = y;
    g.cols = n;
    g.bias = c.packed.fusionBias.data();
    c.k.gemm(g);
    for (int64_t i = 0; i < n; ++i) to[i] = keys + (at + i) * d;
    c.k.fromLanes(y, tile, n, d, to);
  }
  if (s.out->segmentAttention) {
    const int64_t most = s.out->segmentsMax;
    float* to2 = s.out->segmentAttention + s.index * most * most;
    std::fill_n(to2, most * most, 0.0f);
    for (int64_t i = 0; i < count; ++i) std::copy_n(p + i * count, count, to2 + i * most);
  }
  storeSegmentRows(c, s, pooled, s.out->segmentPool);
  storeSegmentRows(c, s, extra, s.out->extraSegment);
  storeSegmentRows(c, s, inside, s.out->intraSegment);
  return {};
}

bool absorbsEmbedding(const Context& c, int64_t steps) {
  return c.packed.absorbs && c.plan.absorbedEmbedding && c.plan.foldedWeights && steps <= kLongestAbsorbed;
}

Status tdhp(const Context& c, const Sequence* sequences, int64_t count, float* const* keys, int threads) {
  for (int64_t j = 0; j < count;) {
    const SequenceOutputs<float>& out = *sequences[j].out;
    const bool traced = out.segmentPool || out.extraSegment || out.intraSegment;
    if (traced || !absorbsEmbedding(c, sequences[j].steps)) {
      if (Status status = tdhpExplicit(c, sequences[j], keys[j], threads); !status.ok()) return status;
      ++j;
      continue;
    }
    int64_t n = 1;
    while (j + n < count && absorbsEmbedding(c, sequences[j + n].steps)) ++n;
    if (Status status = tdhpAbsorbed(c, sequences + j, n, keys + j); !status.ok()) return status;
    j += n;
  }
  for (int64_t j = 0; j < count; ++j) {
    const Sequence& s = sequences[j];
    storeSegmentRows(c, s, keys[j], s.out->keys);
    if (s.out->segments) s.out->segments[s.index] = static_cast<int32_t>(s.segments.count);
    if (s.out->intraAttention)
      std::fill_n(s.out->intraAttention + s.index * s.padded + s.steps, s.padded - s.steps, 0.0f);
  }
  return {};
}

}  // namespace hpformer::cpu
