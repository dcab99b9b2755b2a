// The kernels of one ISA level that work on lanes or tiles, and the scan, against plain loops in double, on random
// shapes with full and ragged tiles; cpu_test sees the ones on rows.
// Levels with tiles (amx; wide_tiles in plain C) run every product three ways: multiply-adds, bfloat16 tiles, float32
// in three parts. HPFORMER_ISA names the level. Usage: kernels_test [seed] [cases]
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "binding/cpu/detect.h"
#include "binding/cpu/packed.h"
#include "check.h"
#include "random_model.h"

using namespace hpformer;
using namespace hpformer::test;

namespace {

const Kernels& k = kernels();
double worst = 0;  // largest error as a part of its bound

void near(double got, double expected, double bound, const char* what) {
  const double part = std::fabs(got - expected) / bound;
  worst = std::max(worst, part);
  if (part <= 1) return;  // NaN fails
  if (++failures <= 20) std::printf("  %s: got %.9g, expected %.9g, allowed %.3g\n", what, got, expected, bound);
}

Floats randomFloats(Random& r, int64_t count, double size = 1) {
  Floats f(count);
  for (int64_t i = 0; i < count; ++i) f.data()[i] = static_cast<float>(r.uniform(-size, size));
  return f;
}

double rounded(float x) {
  const uint32_t bits = static_cast<uint32_t>(bfloat16Bits(x)) << 16;
  std::memcpy(&x, &bits, 4);
  return static_cast<double>(x);
}

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

double activation(int kind, double x) {
  switch (kind) {
    case 1: return std::max(0.0, x);
    case 2: return x / (1 + std::exp(-x));
    case 3: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case 4: return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    default: return x;
  }
}

// A [rows][deep] in panels, and as tiles of `parts` bfloat16 parts.
Floats panels(const float* a, int64_t rows, int64_t deep) {
  Floats out(up(rows, k.panel) * deep);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < deep; ++i) out.data()[(r / k.panel * deep + i) * k.panel + r % k.panel] = a[r * deep + i];
  return out;
}

int64_t tileAt(int64_t row, int64_t column, int64_t depth) {
  return (row / 16 * depth + column / 32) * 512 + row % 16 * 32 + column % 32;
}

Aligned<uint16_t> tiles(const float* a, int64_t rows, int64_t deep, int parts) {
  const int64_t depth = up(deep, 32) / 32, size = up(rows, 16) / 16 * depth * 512;
  Aligned<uint16_t> out(parts * size);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < deep; ++i) {
      float v = a[r * deep + i];
      for (int p = 0; p < parts; ++p) {
        out.data()[p * size + tileAt(r, i, depth)] = bfloat16Bits(v);
        v -= static_cast<float>(rounded(v));
      }
    }
  return out;
}

enum class Way { plain, halves, parts, fixed };

void product(Random& r, Way way) {
  Gemm g;
  g.rows = r.in(1, 70);
  g.k = r.in(1, r.chance(0.3) ? 300 : 70);
  // As deep as tiles go, in all three parts, or fixed point.
  if (r.chance(0.1))
    g.k = r.in(600, k.tileDepth > 0 ? k.tileDepth : k.fixedDepth > 0 && r.chance(0.2) ? k.fixedDepth : 1024);
  g.cols = r.in(1, 70);
  g.activation = static_cast<int>(r.in(0, 4));
  const int64_t first = way != Way::fixed && r.chance(0.3) ? 32 * r.in(0, 2) : 0;
  const int64_t deep = g.k + first + (way != Way::fixed && r.chance(0.3) ? r.in(0, 40) : 0);
  if (deep != g.k) g.packed = deep;
  g.ldx = g.ldc = up(g.cols, k.width) + k.width * r.in(0, 1);
  const Floats a = randomFloats(r, g.rows * deep, std::exp2(r.in(-4, 2))), bias = randomFloats(r, g.rows);
  Floats x = randomFloats(r, g.k * g.ldx, std::exp2(r.in(-4, 2)));
  Floats c = randomFloats(r, g.rows * g.ldc), again(g.rows * g.ldc);
  const Floats panel = panels(a.data(), g.rows, deep);
  const Aligned<uint16_t> tile = tiles(a.data(), g.rows, deep, way == Way::parts ? 3 : 1);
  g.a = panel.data() + first * k.panel;
  if (way != Way::plain) g.tiles = tile.data() + first / 32 * 512;
  if (way == Way::parts) g.part = tile.size() / 3;
  Aligned<int32_t> pairs(up(g.rows, k.panel) * ((g.k + 1) / 2));
  Floats scale(up(g.rows, k.panel));
  if (way == Way::fixed)
    g.fixed = {pairs.data(), scale.data(), k.packFixed(a.data(), deep, g.rows, g.k, pairs.data(), scale.data())};
  g.x = x.data();
  if (r.chance(0.5)) g.bias = bias.data();
  const Floats before = [&] {
    Floats copy(c.size());
    std::copy_n(c.data(), c.size(), copy.data());
    return copy;
  }();
  if (r.chance(0.5)) g.residual = g.activation == 0 && r.chance(0.5) ? c.data() : before.data();
  g.c = c.data();
  k.gemm(g);
  const char* const names[] = {"product", "product in bfloat16", "product in three parts", "product in fixed point"};
  const bool halves = way == Way::halves;
  for (int64_t i = 0; i < g.rows; ++i)
    for (int64_t j = 0; j < g.cols; ++j) {
      double sum = g.bias ? bias.data()[i] : 0, size = std::fabs(sum), top = 0;
      for (int64_t at = 0; at < g.k; ++at) {
        const float left = a.data()[i * deep + first + at], right = x.data()[at * g.ldx + j];
        const double term = halves ? rounded(left) * rounded(right) : static_cast<double>(left) * right;
        sum += term;
        size += std::fabs(term);
        top = std::max(top, std::fabs(static_cast<double>(right)));
      }
      const double before1 = g.residual ? before.data()[i * g.ldc + j] : 0, y = activation(g.activation, sum);
      // One chain over k from the bias on; on tiles short chains, the bias last.
      const double by = way == Way::plain ? 2e-7 + 1e-7 * std::sqrt(static_cast<double>(g.k)) : 4e-7;
      // Half a step of each operand: |A| steps of X, |X| steps of A.
      double steps = 0;
      if (way == Way::fixed) {
        const double unit = top / static_cast<double>(g.fixed.limit), one = scale.data()[i];
        for (int64_t at = 0; at < g.k; ++at)
          steps += 0.51 *
                   (std::fabs(a.data()[i * deep + at]) * unit + std::fabs(x.data()[at * g.ldx + j]) * one + unit * one);
      }
      near(c.data()[i * g.ldc + j], y + before1,
           by * size + 1.2 * steps + 1e-6 * std::fabs(y) + 1e-7 * std::fabs(before1) + 1e-12,
           names[static_cast<int>(way)]);
    }
  // A NaN stays in its column, and tile registers given back are set up anew: all others get the same bits.
  const int64_t bad = r.in(0, g.cols - 1), at = r.in(0, g.k - 1);
  x.data()[at * g.ldx + bad] = std::numeric_limits<float>::quiet_NaN();
  if (g.residual) g.residual = before.data();
  g.c = again.data();
  if (k.release) k.release();
  k.gemm(g);
  bool same = true;
  for (int64_t i = 0; i < g.rows; ++i)
    for (int64_t j = 0; j < g.cols; ++j) {
      const float* const one = again.data() + i * g.ldc + j;
      same &= j == bad ? std::isnan(*one) : std::memcmp(one, c.data() + i * g.ldc + j, sizeof *one) == 0;
    }
  CHECK(same);
}

void scores(Random& r, bool onTiles) {
  KeyScores a;
  constexpr int64_t kWidths[] = {4, 8, 16, 32, 64};
  a.width = onTiles ? kWidths[r.in(0, 4)] : r.in(1, 40);
  a.heads = r.in(1, 6);
  if (onTiles) a.block = std::max<int64_t>(a.width, 32);
  a.segments = r.in(1, 24);
  a.cols = r.in(1, 70);
  a.ld = up(a.cols, k.width);
  a.scale = onTiles ? 1 : 0.5f;
  const int64_t hidden = a.heads * a.width, together = onTiles ? a.block / a.width : 1;
  const Floats keys = randomFloats(r, a.segments * hidden), x = randomFloats(r, hidden * a.ld);
  Floats packed(a.heads * up(a.segments, k.panel) * a.width), p(a.heads * a.segments * a.ld);
  const int64_t depth = onTiles ? a.block / 32 : 1, size = up(together * a.segments, 16) / 16 * depth * 512;
  Aligned<uint16_t> tile(up(a.heads, together) / together * size);
  for (int64_t g = 0; g < a.heads; ++g)
    for (int64_t s = 0; s < a.segments; ++s)
      for (int64_t i = 0; i < a.width; ++i) {
        const float v = keys.data()[s * hidden + g * a.width + i];
        packed.data()[g * up(a.segments, k.panel) * a.width + (s / k.panel * a.width + i) * k.panel + s % k.panel] = v;
        if (onTiles)
          tile.data()[g / together * size + tileAt(g % together * a.segments + s, g % together * a.width + i, depth)] =
              bfloat16Bits(v);
      }
  a.keys = packed.data();
  if (onTiles) a.tiles = tile.data();
  a.x = x.data();
  a.p = p.data();
  k.keyScores(a);
  for (int64_t g = 0; g < a.heads; ++g)
    for (int64_t j = 0; j < a.cols; ++j) {
      Vector e(static_cast<size_t>(a.segments));
      double sum = 0, largest = 0;
      for (int64_t s = 0; s < a.segments; ++s) {
        double score = 0, size1 = 0;
        for (int64_t i = 0; i < a.width; ++i) {
          const float left = keys.data()[s * hidden + g * a.width + i], right = x.data()[(g * a.width + i) * a.ld + j];
          const double term = onTiles ? rounded(left) * rounded(right) : static_cast<double>(left) * right;
          score += term;
          size1 += std::fabs(term);
        }
        largest = std::max(largest, size1);
        sum += e[static_cast<size_t>(s)] = std::exp(score * static_cast<double>(a.scale));
      }
      for (int64_t s = 0; s < a.segments; ++s)
        near(p.data()[(g * a.segments + s) * a.ld + j], e[static_cast<size_t>(s)] / sum, 1e-6 + 4e-7 * largest,
             onTiles ? "probabilities on tiles" : "probabilities");
    }
}

// Lanes packed as tiles: one part is the nearest bfloat16, three parts add up to the value.
void packing(Random& r, bool split) {
  const int64_t rows = r.in(1, 70), cols = r.in(1, 70), first = r.in(0, 80), depth = up(first + cols, 32) / 32;
  const int64_t ld = up(cols, k.width), size = up(rows, 16) / 16 * depth * 512;
  const Floats x = randomFloats(r, rows * ld);
  Aligned<uint16_t> out((split ? 3 : 1) * size);
  k.packTiles(x.data(), ld, rows, cols, out.data(), split ? size : 0, depth, first);
  int64_t filled = 0;
  for (int64_t i = 0; i < out.size(); ++i) filled += out.data()[i] != 0;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      const float v = x.data()[i * ld + j];
      double sum = 0;
      for (int p = 0; p < (split ? 3 : 1); ++p) {
        const uint16_t half = out.data()[p * size + tileAt(i, first + j, depth)];
        const uint32_t bits = static_cast<uint32_t>(half) << 16;
        float part;
        std::memcpy(&part, &bits, 4);
        sum += static_cast<double>(part);
        filled -= half != 0;
      }
      near(sum, split ? static_cast<double>(v) : rounded(v), split ? 1e-7 * std::fabs(v) + 1e-12 : 1e-12,
           "packed tiles");
    }
  CHECK(filled == 0);  // nothing beside the columns was written
}

void norms(Random& r) {
  NormLanes n;
  n.channels = r.in(1, 150);
  n.cols = r.in(1, 70);
  n.ld = up(n.cols, k.width);
  n.form = static_cast<NormForm>(r.in(0, 3));
  const Floats weight = randomFloats(r, n.channels), bias = randomFloats(r, n.channels),
               x = randomFloats(r, n.channels * n.ld);
  const Floats mean = randomFloats(r, n.channels);
  Floats variance = randomFloats(r, n.channels), y(n.channels * n.ld);
  for (int64_t c = 0; c < n.channels; ++c) variance.data()[c] = std::fabs(variance.data()[c]) + 0.1f;
  n.weight = weight.data();
  n.bias = n.form == NormForm::rms ? nullptr : bias.data();
  n.mean = mean.data();
  n.variance = variance.data();
  n.x = x.data();
  n.y = y.data();
  k.norm(n);
  for (int64_t j = 0; j < n.cols; ++j) {
    double m = 0, v = 0;
    const auto at = [&](int64_t c) { return static_cast<double>(x.data()[c * n.ld + j]); };
    for (int64_t c = 0; n.form == NormForm::layernorm && c < n.channels; ++c)
      m += at(c) / static_cast<double>(n.channels);
    for (int64_t c = 0; c < n.channels; ++c) v += (at(c) - m) * (at(c) - m) / static_cast<double>(n.channels);
    for (int64_t c = 0; c < n.channels; ++c) {
      double by = 1 / std::sqrt(v + 1e-5), shift = m;
      if (n.form == NormForm::affine) by = 1, shift = 0;
      if (n.form == NormForm::batchnorm) by = 1 / std::sqrt(variance.data()[c] + 1e-5), shift = mean.data()[c];
      const double b = n.bias ? bias.data()[c] : 0;
      near(y.data()[c * n.ld + j], (at(c) - shift) * by * weight.data()[c] + b, 1e-6 + 2e-6 * by, "norm");
    }
  }
}

void scan(Random& r) {
  const int64_t width = r.in(1, 100), rows = r.in(1, 150);
  const Floats x = randomFloats(r, rows * width), query = randomFloats(r, width);
  Floats acc(width), values(rows);
  float maximum = -std::numeric_limits<float>::infinity(), sum = 0;
  for (int64_t from = 0, n; from < rows; from += n) {
    n = std::min(rows - from, r.in(1, ScanBlock::kMost));
    ScanBlock b;
    b.x = x.data() + from * width;
    b.ldx = b.width = width;
    b.rows = n;
    b.query = query.data();
    b.scale = 0.7f;
    b.scores = values.data() + from;
    b.maximum = &maximum;
    b.sum = &sum;
    b.acc = acc.data();
    k.scanBlock(b);
  }
  double total = 0;
  Vector mixed(static_cast<size_t>(width));
  for (int64_t t = 0; t < rows; ++t) {
    double score = 0;
    for (int64_t i = 0; i < width; ++i) score += static_cast<double>(query.data()[i]) * x.data()[t * width + i];
    score *= static_cast<double>(0.7f);
    near(values.data()[t], score, 1e-5, "scan: score");
    const double e = std::exp(score);
    total += e;
    for (int64_t i = 0; i < width; ++i) mixed[static_cast<size_t>(i)] += e * x.data()[t * width + i];
  }
  for (int64_t i = 0; i < width; ++i)
    near(acc.data()[i] / sum, mixed[static_cast<size_t>(i)] / total, 1e-5, "scan: weighted mean");
}

void layouts(Random& r) {
  const int64_t count = r.in(1, 70), width = r.in(1, 70), ld = up(count, k.width);
  const Floats x = randomFloats(r, count * width);
  Floats lanes(width * ld), back(count * width);
  std::vector<const float*> from;
  std::vector<float*> to;
  for (int64_t t = 0; t < count; ++t) {
    from.push_back(r.chance(0.1) ? nullptr : x.data() + t * width);
    to.push_back(back.data() + t * width);
  }
  k.toLanes(from.data(), count, width, lanes.data(), ld);
  k.fromLanes(lanes.data(), ld, count, width, to.data());
  bool same = true;
  for (int64_t t = 0; t < count; ++t)
    for (int64_t i = 0; i < width; ++i)
      same &= back.data()[t * width + i] == (from[static_cast<size_t>(t)] ? x.data()[t * width + i] : 0.0f);
  CHECK(same);
}

// The elementwise functions, within the errors that kernels/math.inl states.
void sigmoids() {
  const int64_t n = 4800;
  Floats x(n), y(n);
  for (int64_t i = 0; i < n; ++i) x.data()[i] = y.data()[i] = static_cast<float>(87.0 * (i - n / 2) / (n / 2.0));
  k.link(1, y.data(), 1, n, n);
  for (int64_t i = 0; i < n; ++i) {
    const double expected = 1 / (1 + std::exp(-static_cast<double>(x.data()[i])));
    near(y.data()[i], expected, 1.5e-7 * expected, "sigmoid");
  }
}

void gelus() {
  const int64_t n = 4800;
  Floats x(n), y(n), one(k.panel);
  for (int64_t i = 0; i < n; ++i) x.data()[i] = static_cast<float>(12.0 * (i - n / 2) / (n / 2.0));
  one.data()[0] = 1;
  Gemm g;
  g.a = one.data();
  g.rows = g.k = 1;
  g.x = x.data();
  g.c = y.data();
  g.ldx = g.ldc = g.cols = n;
  g.activation = 3;
  k.gemm(g);
  for (int64_t i = 0; i < n; ++i) {
    const double at = x.data()[i], expected = activation(3, at);
    if (at > -1) near(y.data()[i], expected, 4.2e-7 * std::fabs(expected) + 1e-38, "gelu");
    near(y.data()[i], expected, 2e-7 * (1 + std::fabs(at)), "gelu");
  }
  // The ends are exact, and a NaN stays.
  const float ends[] = {-1e30f, -100, 100, 1e30f, std::numeric_limits<float>::quiet_NaN()};
  std::fill_n(x.data(), n, 0.0f);
  std::copy(std::begin(ends), std::end(ends), x.data());
  k.gemm(g);
  CHECK(y.data()[0] == 0 && y.data()[1] == 0 && y.data()[2] == 100 && y.data()[3] == 1e30f);
  CHECK(std::isnan(y.data()[4]) && y.data()[5] == 0);
}

void report(const char* what) {
  std::printf("isa %s, %s: %d failures, worst error %.2f of its bound\n", k.isa, what, failures, worst);
  std::fflush(stdout);
  worst = 0;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int cases = argc > 2 ? std::atoi(argv[2]) : 100;
  const char* wanted = std::getenv("HPFORMER_ISA");
  if (wanted && std::strcmp(k.isa, wanted) != 0) {
    std::printf("this machine or build has no ISA level %s\n", wanted);
    return 77;
  }
  std::printf("seed %llu, %d cases of each\n", static_cast<unsigned long long>(seed), cases);
  Random r(seed);
  const auto all = [&](const char* what, auto one) {
    for (int i = 0; i < cases; ++i) one();
    report(what);
  };
  sigmoids();
  report("sigmoid");
  gelus();
  report("gelu");
  all("norms", [&] { norms(r); });
  all("scan", [&] { scan(r); });
  all("layouts", [&] { layouts(r); });
  all("probabilities", [&] { scores(r, false); });
  all("products", [&] { product(r, Way::plain); });
  if (k.fixedDepth > 0) all("products in fixed point", [&] { product(r, Way::fixed); });
  if (k.tileDepth > 0) {
    all("products in bfloat16 on tiles", [&] { product(r, Way::halves); });
    all("products in three parts on tiles", [&] { product(r, Way::parts); });
    all("probabilities on tiles", [&] { scores(r, true); });
    all("packed tiles", [&] { packing(r, false); });
    all("packed tiles of three parts", [&] { packing(r, true); });
  }
  return result();
}
