// The kernel table on plain rows: what `kernels.*` calls in float32. The same kernels in the same order as the engine,
// with packing done per call.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend.h"
#include "kernels.h"
#include "packed.h"

namespace hpformer::cpu {
namespace {

Floats zeros(int64_t count) { return Floats(count); }

int64_t panelled(int64_t rows) {
  const int64_t panel = kernels().panel;
  return (rows + panel - 1) / panel * panel;
}

// Panels of the matrix whose element (r, c) is at(r, c).
template <typename At>
void pack(int64_t rows, int64_t columns, At at, float* out) {
  const int64_t panel = kernels().panel;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[(r / panel * columns + c) * panel + r % panel] = at(r, c);
}

Floats packed(const float* w, int64_t rows, int64_t columns) {
  Floats out = zeros(panelled(rows) * columns);
  pack(
      rows, columns, [&](int64_t r, int64_t c) { return w[r * columns + c]; }, out.data());
  return out;
}

// Tiles of rows [count][width] as lanes; `use(lanes of the tile, first row, rows)`.
template <typename Use>
void eachTile(const float* x, int64_t count, int64_t width, Use use) {
  const Kernels& k = kernels();
  Floats lanes = zeros(width * k.tile);
  std::vector<const float*> from(static_cast<size_t>(k.tile));
  for (int64_t at = 0; at < count; at += k.tile) {
    const int64_t n = std::min(k.tile, count - at);
    for (int64_t i = 0; i < n; ++i) from[static_cast<size_t>(i)] = x + (at + i) * width;
    k.toLanes(from.data(), n, width, lanes.data(), k.tile);
    use(lanes.data(), at, n);
  }
}

void store(const float* lanes, int64_t first, int64_t count, int64_t width, float* y) {
  const Kernels& k = kernels();
  std::vector<float*> to(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) to[static_cast<size_t>(i)] = y + (first + i) * width;
  k.fromLanes(lanes, k.tile, count, width, to.data());
}

Gemm product(const Floats& a, int64_t rows, int64_t inner, const float* x, float* y, int64_t count) {
  Gemm g;
  g.a = a.data();
  g.rows = rows;
  g.k = inner;
  g.x = x;
  g.c = y;
  g.ldx = g.ldc = kernels().tile;
  g.cols = count;
  return g;
}

// A norm in the form of the kernels; scalenorm's one weight serves every channel.
struct Norm {
  Norm(NormKind kind, const reference::NormArrays<float>& w, int64_t channels) {
    constexpr NormForm kForms[] = {NormForm::layernorm, NormForm::batchnorm, NormForm::rms, NormForm::rms};
    lanes.form = kForms[static_cast<int>(kind)];
    lanes.weight = w.weight;
    lanes.bias = w.bias;
    lanes.mean = w.mean;
    lanes.variance = w.variance;
    lanes.channels = channels;
    lanes.ld = kernels().tile;
    if (kind != NormKind::scalenorm) return;
    weight.assign(static_cast<size_t>(channels), w.weight[0]);
    lanes.weight = weight.data();
  }
  void operator()(const float* x, float* y, int64_t count) {
    lanes.x = x;
    lanes.y = y;
    lanes.cols = count;
    kernels().norm(lanes);
  }
  NormLanes lanes;
  std::vector<float> weight;
};

// The compressed keys of one sequence, packed for scores and for the weighted sum.
struct Keys {
  Keys(const float* keys, int64_t count, int64_t hidden, int64_t headCount)
      : segments(count), heads(headCount), width(hidden / headCount) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    const int64_t scoreSize = panelled(segments) * width;
    valueSize = panelled(width) * segments;
    scores = zeros(heads * scoreSize);
    values = zeros(heads * valueSize);
    p = zeros(heads * segments * kernels().tile);
    for (int64_t g = 0; g < heads; ++g) {
      const float* own = keys + g * width;
      pack(
          segments, width, [&](int64_t s, int64_t i) { return own[s * hidden + i] * scale; },
          scores.data() + g * scoreSize);
      pack(
          width, segments, [&](int64_t i, int64_t s) { return own[s * hidden + i]; }, values.data() + g * valueSize);
    }
  }

  void attend(const float* x, float* out, int64_t count) {
    const int64_t tile = kernels().tile;
    KeyScores k;
    k.keys = scores.data();
    k.x = x;
    k.p = p.data();
    k.heads = heads;
    k.width = width;
    k.segments = segments;
    k.ld = tile;
    k.cols = count;
    kernels().keyScores(k);
    for (int64_t g = 0; g < heads; ++g) {
      Gemm m = product(values, width, segments, p.data() + g * segments * tile, out + g * width * tile, count);
      m.a += g * valueSize;
      kernels().gemm(m);
    }
  }

  int64_t segments, heads, width, valueSize = 0;
  Floats scores, values, p;
};

}  // namespace

void denseRows(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias, int64_t outputs,
               Activation activation, float* y) {
  const Floats w = packed(weight, outputs, inputs);
  Floats lanes = zeros(outputs * kernels().tile);
  eachTile(x, rows, inputs, [&](const float* tile, int64_t first, int64_t n) {
    Gemm g = product(w, outputs, inputs, tile, lanes.data(), n);
    g.bias = bias;
    g.activation = static_cast<int>(activation);
    kernels().gemm(g);
    store(lanes.data(), first, n, outputs, y);
  });
}

void normRows(NormKind kind, const reference::NormArrays<float>& w, const float* x, int64_t rows, int64_t hidden,
              float* y) {
  Norm norm(kind, w, hidden);
  Floats lanes = zeros(hidden * kernels().tile);
  eachTile(x, rows, hidden, [&](const float* tile, int64_t first, int64_t n) {
    norm(tile, lanes.data(), n);
    store(lanes.data(), first, n, hidden, y);
  });
}

void poolRows(const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length, Pooling pooling,
              float* out) {
  const Kernels& k = kernels();
  const bool mean = pooling == Pooling::mean;
  const std::vector<float> zero(static_cast<size_t>(hidden), 0.0f);
  std::fill_n(out, segments * hidden, mean ? 0.0f : -std::numeric_limits<float>::infinity());
  for (int64_t s = 0; s < segments; ++s, out += hidden) {
    const int64_t begin = std::min(steps, s * length), real = std::clamp<int64_t>(steps - begin, 0, length);
    (mean ? k.rowsSum : k.rowsMax)(x + begin * hidden, hidden, real, hidden, out);
    if (mean) {
      k.scaleRow(1.0f / static_cast<float>(length), out, out, hidden);
    } else if (real < length) {
      k.rowsMax(zero.data(), hidden, 1, hidden, out);  // an appended zero row takes part
    }
  }
}

void extraRows(const float* pool, int64_t segments, int64_t hidden, float* extra, float* weights) {
  const Kernels& k = kernels();
  std::vector<float> p(static_cast<size_t>(segments));
  std::fill_n(extra, segments * hidden, 0.0f);
  for (int64_t q = 0; q < segments; ++q) {
    for (int64_t s = 0; s < segments; ++s)
      p[static_cast<size_t>(s)] = k.dot(pool + q * hidden, pool + s * hidden, hidden);
    k.softmaxRow(p.data(), segments, 1.0f / std::sqrt(static_cast<float>(hidden)));
    for (int64_t s = 0; s < segments; ++s)
      k.axpy(p[static_cast<size_t>(s)], pool + s * hidden, extra + q * hidden, hidden);
    if (weights) std::copy(p.begin(), p.end(), weights + q * segments);
  }
}

void intraRows(const float* extra, const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length,
               float* intra, float* weights) {
  const Kernels& k = kernels();
  std::vector<float> scores(static_cast<size_t>(std::min(length, steps)));
  std::fill_n(intra, segments * hidden, 0.0f);
  for (int64_t s = 0; s < segments; ++s) {
    const int64_t begin = std::min(steps, s * length), real = std::clamp<int64_t>(steps - begin, 0, length);
    float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
    float* out = intra + s * hidden;
    for (int64_t from = 0; from < real; from += ScanBlock::kMost) {
      ScanBlock b;
      b.x = x + (begin + from) * hidden;
      b.ldx = b.width = hidden;
      b.rows = std::min(ScanBlock::kMost, real - from);
      b.query = extra + s * hidden;
      b.scale = 1.0f / std::sqrt(static_cast<float>(hidden));
      b.scores = scores.data() + from;
      b.maximum = &maximum;
      b.sum = &sum;
      b.acc = out;
      k.scanBlock(b);
    }
    if (real < length) {  // each appended row adds e^0 to the denominator and nothing else
      const float top = maximum > 0 ? maximum : 0;
      const float shrink = sum > 0 || sum != sum ? std::exp(maximum - top) : 0.0f;
      sum = sum * shrink + static_cast<float>(length - real) * std::exp(-top);
      k.scaleRow(shrink, out, out, hidden);
      maximum = top;
    }
    k.scaleRow(1.0f / sum, out, out, hidden);
    for (int64_t t = 0; weights && t < real; ++t)
      weights[begin + t] = std::exp(scores[static_cast<size_t>(t)] - maximum) / sum;
  }
}

void fusionRows(const float* extra, const float* intra, int64_t rows, int64_t hidden, const float* weight,
                const float* bias, float* keys) {
  std::vector<float> both(static_cast<size_t>(rows * 2 * hidden));
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(extra + r * hidden, hidden, both.data() + 2 * r * hidden);
    std::copy_n(intra + r * hidden, hidden, both.data() + (2 * r + 1) * hidden);
  }
  denseRows(both.data(), rows, 2 * hidden, weight, bias, hidden, Activation::linear, keys);
}

void tdhpRows(const float* x, int64_t steps, int64_t hidden, int64_t segments, int64_t length, Pooling pooling,
              const float* weight, const float* bias, float* keys) {
  const size_t size = static_cast<size_t>(segments * hidden);
  std::vector<float> pool(size), extra(size), intra(size);
  poolRows(x, steps, hidden, segments, length, pooling, pool.data());
  extraRows(pool.data(), segments, hidden, extra.data(), nullptr);
  intraRows(extra.data(), x, steps, hidden, segments, length, intra.data(), nullptr);
  fusionRows(extra.data(), intra.data(), segments, hidden, weight, bias, keys);
}

void keyAttentionRows(const float* x, int64_t steps, int64_t hidden, const float* keys, int64_t segments, int64_t heads,
                      float* y, float* weights) {
  const int64_t ld = kernels().tile;
  Keys k(keys, segments, hidden, heads);
  Floats lanes = zeros(hidden * ld);
  eachTile(x, steps, hidden, [&](const float* tile, int64_t first, int64_t n) {
    k.attend(tile, lanes.data(), n);
    store(lanes.data(), first, n, hidden, y);
    if (weights) store(k.p.data(), first, n, heads * segments, weights);
  });
}

void layerRows(const float* x, int64_t steps, int64_t hidden, const float* keys, int64_t segments, int64_t heads,
               const reference::LayerArrays<float>& w, NormKind kind, Activation activation, float* y) {
  const int64_t ld = kernels().tile;
  Keys k(keys, segments, hidden, heads);
  const Floats output = packed(w.output, hidden, hidden), feedForward = packed(w.feedForward, hidden, hidden);
  Norm norm1(kind, w.norm1, hidden), norm2(kind, w.norm2, hidden);
  Floats attended = zeros(hidden * ld), sum = zeros(hidden * ld), middle = zeros(hidden * ld);
  eachTile(x, steps, hidden, [&](const float* tile, int64_t first, int64_t n) {
    k.attend(tile, attended.data(), n);
    Gemm g = product(output, hidden, hidden, attended.data(), sum.data(), n);
    g.residual = tile;
    kernels().gemm(g);
    norm1(sum.data(), middle.data(), n);
    g = product(feedForward, hidden, hidden, middle.data(), sum.data(), n);
    g.bias = w.feedForwardBias;
    g.activation = static_cast<int>(activation);
    g.residual = middle.data();
    kernels().gemm(g);
    norm2(sum.data(), attended.data(), n);
    store(attended.data(), first, n, hidden, y);
  });
}

}  // namespace hpformer::cpu
