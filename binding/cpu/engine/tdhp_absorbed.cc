// TDHP straight from raw feature rows: pooling is linear, so no token is embedded (the algebra: docs/performance.md).
// With W the embedding, q_t = c + PE_t and G = W^T W, for segments s, r of one sequence:
//   xm_s = (sum of x_t) / b,   y_s = G xm_s + W^T c_s,   m_s . m_r = xm_s . y_r + (W^T c_s) . xm_r + c_s . c_r
//   P = softmax(m m^T / sqrt(d)),   u_s = sum_r P_sr y_r,   xe_s = sum_r P_sr xm_r
//   score_t = u_s . x_t + xe_s . (W^T q_t) + sum_r P_sr (c_r . q_t)
//   K_s = (W_f1 W) xe_s + (W_f2 W) sum_t p_t x_t + sum_r P_sr W_f1 c_r + sum_t p_t W_f2 q_t + b_f
// The two products run for the segments of several sequences at once, one segment a lane.
#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"

namespace hpformer::cpu {
namespace {

constexpr int64_t kBlock = 48;
static_assert(kBlock <= ScanBlock::kMost);

struct Columns {
  int64_t count = 0;
  float *xm, *y, *xe, *u, *px, *extra;
};

// y = A [x0 ; x1] + bias + added for every column: rows of `k` (each part) in, rows of `n` out to `out`. `g` has A.
void product(const Context& c, Gemm g, int64_t n, int64_t k, const float* const* x, int64_t parts, const float* bias,
             const float* added, int64_t columns, float* const* out) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  g.rows = n;
  g.k = parts * k;
  g.bias = bias;
  if (columns <= kFewColumns && !g.tiles) {
    float* in = arena.take<float>(columns * g.k);
    float* y = arena.take<float>(columns * n);
    for (int64_t i = 0; i < columns; ++i)
      for (int64_t part = 0; part < parts; ++part) std::copy_n(x[part] + i * k, k, in + i * g.k + part * k);
    g.x = in;
    g.ldx = g.k;
    g.c = y;
    g.ldc = n;
    g.cols = columns;
    g.residual = added;
    c.k.matvec(g);
    for (int64_t i = 0; i < columns; ++i) std::copy_n(y + i * n, n, out[i]);
    return;
  }
  const int64_t tile = c.k.tile;
  float* in = arena.take<float>(g.k * tile);
  float* result = arena.take<float>(n * tile);
  const float** from = arena.take<const float*>(tile);
  g.x = in;
  g.ldx = g.ldc = tile;
  g.c = result;
  for (int64_t at = 0; at < columns; at += tile) {
    const int64_t cols = std::min(tile, columns - at);
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t i = 0; i < cols; ++i) from[i] = x[part] + (at + i) * k;
      c.k.toLanes(from, cols, k, in + part * k * tile, tile);
    }
    g.cols = cols;
    if (added) {
      for (int64_t i = 0; i < cols; ++i) from[i] = added + (at + i) * n;
      c.k.toLanes(from, cols, n, result, tile);
      g.residual = result;
    }
    c.k.gemm(g);
    c.k.fromLanes(result, tile, cols, n, out + at);
  }
}

// P, xe and u of one sequence whose columns begin at `at`; P goes to `probabilities`.
void among(const Context& c, const LengthTables& t, const Columns& w, int64_t at, float* probabilities) {
  const int64_t f = c.spec.features, count = t.segments.count;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.spec.hidden));
  for (int64_t s = 0; s < count; ++s) {
    float* p = probabilities + s * count;
    for (int64_t r = 0; r < count; ++r)
      p[r] = c.k.dot(w.xm + (at + s) * f, w.y + (at + r) * f, f) + c.k.dot(t.w.data() + s * f, w.xm + (at + r) * f, f) +
             t.cc[static_cast<size_t>(s * count + r)];
    c.k.softmaxRow(p, count, scale);
    c.k.rowsMix(w.xm + at * f, f, count, f, p, w.xe + (at + s) * f);
    c.k.rowsMix(w.y + at * f, f, count, f, p, w.u + (at + s) * f);
  }
}

// The scan of one segment: px = sum p_t x_t and extra += sum p_t W_f2 q_t.
void scan(const Context& c, const Sequence& s, const LengthTables& t, const Columns& w, int64_t segment, int64_t column,
          const float* p, const float* zero) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const int64_t d = c.spec.hidden, f = c.spec.features, b = s.segments.length, count = s.segments.count;
  const int64_t begin = segment * b, end = std::min(s.steps, begin + b);
  const bool keep = s.out->intraAttention != nullptr;
  float* scores = arena.take<float>(keep ? b : kBlock);
  float* sumQ = arena.take<float>(d);
  float offset[kBlock];
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
  float* px = w.px + column * f;
  std::fill_n(px, f, 0.0f);
  std::fill_n(sumQ, d, 0.0f);
  ScanBlock block;
  block.ldx = block.ldtable = block.width = block.tableWidth = f;
  block.ldsecond = block.secondWidth = d;
  block.query = w.u + column * f;
  block.tableQuery = w.xe + column * f;
  block.scale = 1.0f / std::sqrt(static_cast<float>(d));
  block.maximum = &maximum;
  block.sum = &sum;
  block.acc = px;
  block.accSecond = sumQ;
  for (int64_t from = begin; from < end;) {
    const int64_t n = std::min({kBlock, end - from, PositionTable::contiguous(from)});
    for (int64_t i = 0; i < n; ++i) {
      const float* cq = t.cq.data() + (from + i) * count;
      float o = 0;
      for (int64_t r = 0; r < count; ++r) o += p[r] * cq[r];
      offset[i] = o;
    }
    block.x = s.features + from * f;
    block.rows = n;
    block.table = c.packed.tables->scores->row(from);
    block.offset = offset;
    block.second = c.packed.tables->fusion->row(from);
    block.scores = keep ? scores + (from - begin) : scores;
    c.k.scanBlock(block);
    from += n;
  }
  int64_t zeros = b - std::max<int64_t>(0, end - begin);
  if (zeros > 0 && !c.plan.zeroRowsClosedForm) {  // the plain form: zero rows through the same scan
    ScanBlock rows = block;
    rows.table = rows.offset = nullptr;
    rows.second = nullptr;
    rows.x = zero;
    rows.ldx = 0;
    float ignored[kBlock];
    rows.scores = ignored;
    const float before = maximum;
    while (zeros > 0) {
      rows.rows = std::min(kBlock, zeros);
      c.k.scanBlock(rows);
      zeros -= rows.rows;
    }
    if (maximum != before) c.k.scaleRow(std::exp(before - maximum), sumQ, sumQ, d);
  } else if (zeros > 0) {
    const float top = maximum > 0 ? maximum : 0;
    const float shrink = sum > 0 || sum != sum ? std::exp(maximum - top) : 0.0f;
    sum = sum * shrink + static_cast<float>(zeros) * std::exp(-top);
    if (shrink != 1.0f) {
      c.k.scaleRow(shrink, px, px, f);
      c.k.scaleRow(shrink, sumQ, sumQ, d);
    }
    maximum = top;
  }
  c.k.scaleRow(1.0f / sum, px, px, f);
  c.k.axpy(1.0f / sum, sumQ, w.extra + column * d, d);
  if (keep && end > begin) storeIntraAttention(s, scores, begin, end - begin, maximum, sum);
}

}  // namespace

Status tdhpAbsorbed(const Context& c, const Sequence* sequences, int64_t count, float* const* keys) {
  const int64_t d = c.spec.hidden, f = c.spec.features;
  for (int64_t first = 0; first < count;) {
    if (c.cancelled()) return {StatusCode::aborted, "aborted"};
    Arena& arena = Arena::local();
    Arena::Scope scope(arena);
    int64_t group = 0, columns = 0, squares = 0;
    while (first + group < count && (group == 0 || columns + sequences[first + group].segments.count <= kColumns)) {
      const int64_t s = sequences[first + group].segments.count;
      columns += s;
      squares += s * s;
      ++group;
    }
    Columns w;
    w.count = columns;
    for (float** part : {&w.xm, &w.y, &w.xe, &w.u, &w.px}) *part = arena.take<float>(columns * f);
    w.extra = arena.take<float>(columns * d);
    float* probabilities = arena.take<float>(squares);
    float* zero = arena.take<float>(f);
    float* lengthRows = arena.take<float>(columns * f);
    float** rows = arena.take<float*>(columns);
    float** yRows = arena.take<float*>(columns);
    auto* tables = arena.take<const LengthTables*>(group);
    std::shared_ptr<const LengthTables> held[kColumns];  // group <= kColumns: every sequence has a segment
    std::fill_n(zero, f, 0.0f);

    for (int64_t j = 0, at = 0; j < group; ++j) {
      const Sequence& s = sequences[first + j];
      if (j > 0 && tables[j - 1]->steps == s.steps) {
        tables[j] = tables[j - 1];
      } else {
        if (Status status = c.packed.tables->length(s.steps, &held[j]); !status.ok()) return status;
        tables[j] = held[j].get();
      }
      const int64_t b = s.segments.length;
      for (int64_t i = 0; i < s.segments.count; ++i, ++at) {
        float* xm = w.xm + at * f;
        const int64_t begin = i * b, end = std::min(s.steps, begin + b);
        std::fill_n(xm, f, 0.0f);
        if (end > begin) c.k.rowsSum(s.features + begin * f, f, end - begin, f, xm);
        c.k.scaleRow(1.0f / static_cast<float>(b), xm, xm, f);
        std::copy_n(tables[j]->w.data() + i * f, f, lengthRows + at * f);
        rows[at] = keys[first + j] + i * d;
      }
    }
    const float* xm[] = {w.xm};
    for (int64_t i = 0; i < columns; ++i) yRows[i] = w.y + i * f;
    Gemm gram, fused;
    gram.a = c.packed.gram.data();
    c.packed.fused.operandOf(&fused, c.k);
    product(c, gram, f, f, xm, 1, nullptr, lengthRows, columns, yRows);
    float* p = probabilities;
    for (int64_t j = 0, at = 0; j < group; ++j) {
      const Sequence& s = sequences[first + j];
      const LengthTables& t = *tables[j];
      const int64_t own = s.segments.count;
      among(c, t, w, at, p);
      for (int64_t i = 0; i < own; ++i) {
        c.k.rowsMix(t.fc.data(), d, own, d, p + i * own, w.extra + (at + i) * d);
        scan(c, s, t, w, i, at + i, p + i * own, zero);
      }
      if (s.out->segmentAttention) {
        const int64_t most = s.out->segmentsMax;
        float* to = s.out->segmentAttention + s.index * most * most;
        std::fill_n(to, most * most, 0.0f);
        for (int64_t i = 0; i < own; ++i) std::copy_n(p + i * own, own, to + i * most);
      }
      at += own;
      p += own * own;
    }
    const float* both[] = {w.xe, w.px};
    product(c, fused, d, f, both, 2, c.packed.fusionBias.data(), w.extra, columns, rows);
    first += group;
  }
  return {};
}

}  // namespace hpformer::cpu
