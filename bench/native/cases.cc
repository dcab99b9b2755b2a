// The kernels of one ISA level on the shapes that the published models use.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <random>

#include "binding/cpu/packed.h"
#include "native.h"

namespace hpformer::native {
namespace {

constexpr int kSlots = 8;

// `kSlots` buffers of the same length, filled with the same numbers in each slot.
struct Slots {
  Slots(int64_t n, unsigned seed, float scale = 1) : count((n + 31) / 16 * 16), data((count + 16) * kSlots) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < count; ++i) at(0)[i] = normal(random);
    for (int s = 1; s < kSlots; ++s) std::copy(at(0), at(0) + count, at(s));
  }
  float* at(int slot) { return data.data() + slot * (count + 16); }  // one cache line apart: no aliasing modulo 4096
  int64_t count;
  Floats data;
};
using Buffer = std::shared_ptr<Slots>;
Buffer buffer(int64_t n, unsigned seed, float scale = 1) { return std::make_shared<Slots>(n, seed, scale); }

double activate(double x, int kind) {
  if (kind == 1) return std::max(0.0, x);
  if (kind == 2) return x / (1 + std::exp(-x));
  if (kind == 3) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return x;
}

// Largest difference in units of the expected values' root mean square.
double relative(const std::vector<double>& expected, const std::function<double(std::size_t)>& got) {
  double worst = 0, square = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double e = std::abs(got(i) - expected[i]);
    if (e > worst || std::isnan(e)) worst = e;  // a NaN stays
    square += expected[i] * expected[i];
  }
  return worst / std::sqrt(square / static_cast<double>(expected.size()) + 1e-300);
}

Buffer packed(const Kernels& k, Slots& matrix, int64_t rows, int64_t depth) {
  const int64_t panels = (rows + k.panel - 1) / k.panel;
  auto out = buffer(panels * k.panel * depth, 1);
  for (int s = 0; s < kSlots; ++s)
    for (int64_t r = 0; r < panels * k.panel; ++r)
      for (int64_t d = 0; d < depth; ++d)
        out->at(s)[r / k.panel * k.panel * depth + d * k.panel + r % k.panel] =
            r < rows ? matrix.at(s)[r * depth + d] : 0.0f;
  return out;
}

Case gemmCase(const Kernels& k, int64_t rows, int64_t depth, int activation, bool residual) {
  const int64_t t = k.tile;
  const auto w = buffer(rows * depth, 2, 1.0f / std::sqrt(static_cast<float>(depth)));
  const auto a = packed(k, *w, rows, depth);
  const auto x = buffer(depth * t, 3), c = buffer(rows * t, 4), bias = buffer(rows, 5), add = buffer(rows * t, 6);
  Case item;
  item.flops = 2.0 * static_cast<double>(rows * depth * t);
  item.bytes = 4.0 * static_cast<double>(rows * depth + depth * t + (residual ? 2 : 1) * rows * t);
  item.call = [=, &k](int slot) {
    Gemm g;
    g.a = a->at(0);  // weights are shared by all tiles
    g.rows = rows;
    g.k = depth;
    g.x = x->at(slot);
    g.ldx = g.ldc = g.cols = t;
    g.c = c->at(slot);
    g.bias = bias->at(0);
    if (residual) g.residual = add->at(slot);
    g.activation = activation;
    k.gemm(g);
  };
  item.error = [=] {
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < t; ++j) {
        double sum = bias->at(0)[r];
        for (int64_t d = 0; d < depth; ++d) sum += static_cast<double>(w->at(0)[r * depth + d]) * x->at(0)[d * t + j];
        expected.push_back(activate(sum, activation) + (residual ? add->at(0)[r * t + j] : 0.0f));
      }
    return relative(expected, [&](std::size_t i) { return c->at(0)[i]; });
  };
  return item;
}

// The same product on bfloat16 tiles: `parts` 1 in bfloat16, 3 the float32 of six products. Only for levels that have
// tiles.
Case tilesCase(const Kernels& k, int64_t size, int parts) {
  const int64_t t = k.tile, depth = size / 32, part = parts == 1 ? 0 : size / 16 * depth * 512;
  const auto w = buffer(size * size, 2, 1.0f / std::sqrt(static_cast<float>(size)));
  const auto x = buffer(size * t, 3), c = buffer(size * t, 4);
  const auto rounded = [](float v) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16Bits(v)) << 16;
    return std::bit_cast<float>(bits);
  };
  const auto packed = std::make_shared<Aligned<uint16_t>>(parts * size * size);
  for (int64_t r = 0; r < size; ++r)
    for (int64_t d = 0; d < size; ++d) {
      float v = w->at(0)[r * size + d];
      for (int p = 0; p < parts; ++p) {
        packed->data()[p * part + (r / 16 * depth + d / 32) * 512 + r % 16 * 32 + d % 32] = bfloat16Bits(v);
        v -= rounded(v);
      }
    }
  Case item;
  item.peak = Peak::tiles;
  // Six products where float32 is made of three parts: what the tiles really do.
  item.flops = (parts == 1 ? 2.0 : 12.0) * static_cast<double>(size * size * t);
  item.bytes = 2.0 * parts * static_cast<double>(size * size) + 8.0 * static_cast<double>(size * t);
  item.call = [=, &k](int slot) {
    Gemm g;
    g.tiles = packed->data();
    g.part = part;
    g.rows = g.k = size;
    g.x = x->at(slot);
    g.ldx = g.ldc = g.cols = t;
    g.c = c->at(slot);
    k.gemm(g);
  };
  item.error = [=] {
    std::vector<double> expected;
    for (int64_t r = 0; r < size; ++r)
      for (int64_t j = 0; j < t; ++j) {
        double sum = 0;
        for (int64_t d = 0; d < size; ++d) {
          const float a = w->at(0)[r * size + d], b = x->at(0)[d * t + j];
          sum += parts == 1 ? static_cast<double>(rounded(a)) * rounded(b) : static_cast<double>(a) * b;
        }
        expected.push_back(sum);
      }
    return relative(expected, [&](std::size_t i) { return c->at(0)[i]; });
  };
  return item;
}

// The same product in 16-bit fixed point; one column is the kernel for a single row.
Case fixedCase(const Kernels& k, int64_t rows, int64_t depth, int64_t cols) {
  const auto w = buffer(rows * depth, 2, 1.0f / std::sqrt(static_cast<float>(depth)));
  const auto x = buffer(depth * cols, 3), c = buffer(rows * cols, 4), bias = buffer(rows, 5);
  const int64_t padded = (rows + k.panel - 1) / k.panel * k.panel;
  const auto pairs = std::make_shared<Aligned<int32_t>>(padded * ((depth + 1) / 2));
  const auto scale = buffer(padded, 6);
  std::fill(pairs->data(), pairs->data() + pairs->size(), 0);
  std::fill(scale->at(0), scale->at(0) + padded, 0.0f);
  const float limit = k.packFixed(w->at(0), depth, rows, depth, pairs->data(), scale->at(0));
  Case item;
  item.peak = Peak::none;
  item.bound = 2e-3;  // 12 to 14 binary digits of each operand
  item.flops = 2.0 * static_cast<double>(rows * depth * cols);
  item.bytes = 2.0 * static_cast<double>(rows * depth) + 4.0 * static_cast<double>((depth + rows) * cols);
  item.call = [=, &k](int slot) {
    Gemm g;
    g.fixed = {pairs->data(), scale->at(0), limit};
    g.rows = rows;
    g.k = depth;
    g.x = x->at(slot);
    g.ldx = cols == 1 ? depth : cols;
    g.c = c->at(slot);
    g.ldc = cols == 1 ? rows : cols;
    g.cols = cols;
    g.bias = bias->at(0);
    (cols == 1 ? k.matvec : k.gemm)(g);
  };
  item.error = [=] {
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < cols; ++j) {
        double sum = bias->at(0)[r];
        for (int64_t d = 0; d < depth; ++d)
          sum += static_cast<double>(w->at(0)[r * depth + d]) * x->at(0)[d * cols + j];
        expected.push_back(sum);
      }
    return relative(expected, [&](std::size_t i) { return c->at(0)[i]; });
  };
  return item;
}

Case matvecCase(const Kernels& k, int64_t rows, int64_t depth) {
  const auto w = buffer(rows * depth, 2, 1.0f / std::sqrt(static_cast<float>(depth)));
  const auto a = packed(k, *w, rows, depth);
  const auto x = buffer(depth, 3), c = buffer(rows, 4), bias = buffer(rows, 5);
  Case item;
  item.flops = 2.0 * static_cast<double>(rows * depth);
  item.bytes = 4.0 * static_cast<double>(rows * depth);
  item.call = [=, &k](int slot) {
    Gemm g;
    g.a = a->at(slot);
    g.rows = rows;
    g.k = depth;
    g.x = x->at(slot);
    g.ldx = depth;
    g.c = c->at(slot);
    g.ldc = rows;
    g.cols = 1;
    g.bias = bias->at(0);
    k.matvec(g);
  };
  item.error = [=] {
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r) {
      double sum = bias->at(0)[r];
      for (int64_t d = 0; d < depth; ++d) sum += static_cast<double>(w->at(0)[r * depth + d]) * x->at(0)[d];
      expected.push_back(sum);
    }
    return relative(expected, [&](std::size_t i) { return c->at(0)[i]; });
  };
  return item;
}

Case normCase(const Kernels& k, NormForm form, int64_t channels) {
  const int64_t t = k.tile;
  const auto x = buffer(channels * t, 7), y = buffer(channels * t, 8), w = buffer(channels, 9),
             b = buffer(channels, 10);
  Case item;
  item.flops = (form == NormForm::layernorm ? 7.0 : 4.0) * static_cast<double>(channels * t);
  item.bytes = 8.0 * static_cast<double>(channels * t);
  item.call = [=, &k](int slot) {
    NormLanes n;
    n.form = form;
    n.weight = w->at(0);
    n.bias = b->at(0);
    n.x = x->at(slot);
    n.y = y->at(slot);
    n.channels = channels;
    n.ld = n.cols = t;
    k.norm(n);
  };
  item.error = [=] {
    std::vector<double> expected(static_cast<std::size_t>(channels * t));
    for (int64_t j = 0; j < t; ++j) {
      double mean = 0, square = 0;
      if (form == NormForm::layernorm)
        for (int64_t c = 0; c < channels; ++c) mean += x->at(0)[c * t + j] / static_cast<double>(channels);
      for (int64_t c = 0; c < channels; ++c)
        square += std::pow(x->at(0)[c * t + j] - mean, 2) / static_cast<double>(channels);
      for (int64_t c = 0; c < channels; ++c) {
        const double scaled = (x->at(0)[c * t + j] - mean) / std::sqrt(square + 1e-5) * w->at(0)[c];
        expected[static_cast<std::size_t>(c * t + j)] = scaled + (form == NormForm::layernorm ? b->at(0)[c] : 0.0f);
      }
    }
    return relative(expected, [&](std::size_t i) { return y->at(0)[i]; });
  };
  return item;
}

Case scoresCase(const Kernels& k, int64_t hidden, int64_t segments) {
  const int64_t t = k.tile, heads = 8, width = hidden / heads, panels = (segments + k.panel - 1) / k.panel;
  const auto dense = buffer(heads * segments * width, 11), x = buffer(hidden * t, 12),
             p = buffer(heads * segments * t, 13);
  const auto keys = buffer(heads * panels * k.panel * width, 14);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t s = 0; s < panels * k.panel; ++s)
      for (int64_t i = 0; i < width; ++i)
        keys->at(0)[(h * panels + s / k.panel) * k.panel * width + i * k.panel + s % k.panel] =
            s < segments ? dense->at(0)[(h * segments + s) * width + i] : 0.0f;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  Case item;
  item.flops = static_cast<double>(heads * segments * t) * (2.0 * static_cast<double>(width) + 20);
  item.bytes = 4.0 * static_cast<double>(hidden * t + heads * segments * t);
  item.call = [=, &k](int slot) {
    KeyScores s;
    s.keys = keys->at(0);
    s.x = x->at(slot);
    s.p = p->at(slot);
    s.heads = heads;
    s.width = width;
    s.segments = segments;
    s.ld = s.cols = t;
    s.scale = scale;
    k.keyScores(s);
  };
  item.error = [=] {
    std::vector<double> expected(static_cast<std::size_t>(heads * segments * t));
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t j = 0; j < t; ++j) {
        double sum = 0;
        for (int64_t s = 0; s < segments; ++s) {
          double dot = 0;
          for (int64_t i = 0; i < width; ++i)
            dot +=
                static_cast<double>(dense->at(0)[(h * segments + s) * width + i]) * x->at(0)[(h * width + i) * t + j];
          sum += expected[static_cast<std::size_t>((h * segments + s) * t + j)] = std::exp(dot * scale);
        }
        for (int64_t s = 0; s < segments; ++s) expected[static_cast<std::size_t>((h * segments + s) * t + j)] /= sum;
      }
    return relative(expected, [&](std::size_t i) { return p->at(0)[i]; });
  };
  return item;
}

Case scanCase(const Kernels& k, int64_t width) {
  constexpr int64_t kRows = 64;
  const auto x = buffer(kRows * width, 15), query = buffer(width, 16), scores = buffer(kRows, 17),
             acc = buffer(width, 18);
  const auto state = buffer(2, 19);
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  Case item;
  item.flops = static_cast<double>(kRows) * (4.0 * static_cast<double>(width) + 20);
  item.bytes = 4.0 * static_cast<double>(kRows * width);
  item.call = [=, &k](int slot) {
    float *maximum = state->at(slot), *sum = maximum + 1;
    *maximum = -INFINITY;
    *sum = 0;
    std::fill(acc->at(slot), acc->at(slot) + width, 0.0f);
    ScanBlock b;
    b.x = x->at(slot);
    b.ldx = b.width = width;
    b.rows = kRows;
    b.query = query->at(0);
    b.scale = scale;
    b.scores = scores->at(slot);
    b.maximum = maximum;
    b.sum = sum;
    b.acc = acc->at(slot);
    k.scanBlock(b);
  };
  item.error = [=] {
    std::vector<double> expected(static_cast<std::size_t>(width), 0.0);
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      double dot = 0;
      for (int64_t i = 0; i < width; ++i) dot += static_cast<double>(x->at(0)[r * width + i]) * query->at(0)[i];
      const double p = std::exp(dot * scale);
      sum += p;
      for (int64_t i = 0; i < width; ++i) expected[static_cast<std::size_t>(i)] += p * x->at(0)[r * width + i];
    }
    for (double& v : expected) v /= sum;
    const float below = state->at(0)[1];
    return relative(expected, [&](std::size_t i) { return acc->at(0)[i] / below; });
  };
  return item;
}

Case lanesAttentionCase(const Kernels& k, int64_t hidden, int64_t segments) {
  const int64_t t = k.tile, heads = 8, width = hidden / heads;
  const auto keys = buffer(segments * hidden * t, 20), x = buffer(hidden * t, 21), p = buffer(heads * segments * t, 22),
             out = buffer(hidden * t, 23);
  const auto counts =
      std::make_shared<std::vector<int32_t>>(static_cast<std::size_t>(t), static_cast<int32_t>(segments));
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  Case item;
  item.flops =
      static_cast<double>(segments * t) * (4.0 * static_cast<double>(hidden) + 20.0 * static_cast<double>(heads));
  item.bytes = 4.0 * static_cast<double>(segments * hidden * t + 2 * hidden * t);
  item.call = [=, &k](int slot) {
    KeyAttentionLanes a;
    a.keys = keys->at(slot);
    a.segments = counts->data();
    a.x = x->at(slot);
    a.p = p->at(slot);
    a.out = out->at(slot);
    a.heads = heads;
    a.width = width;
    a.segmentsMax = segments;
    a.ld = a.cols = t;
    a.scale = scale;
    k.keyAttentionLanes(a);
  };
  item.error = [=] {
    std::vector<double> expected(static_cast<std::size_t>(hidden * t), 0.0);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t j = 0; j < t; ++j) {
        double sum = 0;
        std::vector<double> e;
        for (int64_t s = 0; s < segments; ++s) {
          double dot = 0;
          for (int64_t i = h * width; i < (h + 1) * width; ++i)
            dot +=
                static_cast<double>(keys->at(0)[((j / k.width * segments + s) * hidden + i) * k.width + j % k.width]) *
                x->at(0)[i * t + j];
          e.push_back(std::exp(dot * scale));
          sum += e.back();
        }
        for (int64_t s = 0; s < segments; ++s)
          for (int64_t i = h * width; i < (h + 1) * width; ++i)
            expected[static_cast<std::size_t>(i * t + j)] +=
                e[static_cast<std::size_t>(s)] / sum *
                keys->at(0)[((j / k.width * segments + s) * hidden + i) * k.width + j % k.width];
      }
    return relative(expected, [&](std::size_t i) { return out->at(0)[i]; });
  };
  return item;
}

}  // namespace

std::vector<Case> casesOf(const Kernels& k, const std::function<bool(const std::string&)>& wanted) {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, const std::function<Case()>& make) {
    if (!wanted(name)) return;
    cases.push_back(make());
    cases.back().name = name;
  };
  add("gemm 128", [&] { return gemmCase(k, 128, 128, 0, false); });
  add("gemm 256", [&] { return gemmCase(k, 256, 256, 0, false); });
  add("gemm 128 relu residual", [&] { return gemmCase(k, 128, 128, 1, true); });
  add("gemm 256 silu residual", [&] { return gemmCase(k, 256, 256, 2, true); });
  add("gemm 128 gelu residual", [&] { return gemmCase(k, 128, 128, 3, true); });
  add("gemm embed 128x76", [&] { return gemmCase(k, 128, 76, 0, false); });
  // Attention and projection of one layer, the output folded: M [hidden][heads * S] times the probabilities.
  add("gemm folded 128x56", [&] { return gemmCase(k, 128, 56, 0, true); });
  add("matvec 128", [&] { return matvecCase(k, 128, 128); });
  add("layernorm 128", [&] { return normCase(k, NormForm::layernorm, 128); });
  add("layernorm 256", [&] { return normCase(k, NormForm::layernorm, 256); });
  add("rmsnorm 128", [&] { return normCase(k, NormForm::rms, 128); });
  add("keyScores 128 S=7", [&] { return scoresCase(k, 128, 7); });
  add("keyScores 256 S=10", [&] { return scoresCase(k, 256, 10); });
  for (const int64_t width : {76, 128, 256})
    add("scanBlock " + std::to_string(width), [&] { return scanCase(k, width); });
  add("keyAttentionLanes 128 S=4", [&] { return lanesAttentionCase(k, 128, 4); });
  if (k.fixedDepth > 0) {
    add("gemm fixed 128", [&] { return fixedCase(k, 128, 128, k.tile); });
    add("gemm fixed 256", [&] { return fixedCase(k, 256, 256, k.tile); });
    add("gemm fixed folded 128x56", [&] { return fixedCase(k, 128, 56, k.tile); });
    add("matvec fixed 128", [&] { return fixedCase(k, 128, 128, 1); });
  }
  if (k.tileDepth > 0) {
    for (const int64_t size : {128, 256}) {
      add("gemm " + std::to_string(size) + " bfloat16 tiles", [&] { return tilesCase(k, size, 1); });
      add("gemm " + std::to_string(size) + " float32 tiles", [&] { return tilesCase(k, size, 3); });
    }
  }
  return cases;
}

}  // namespace hpformer::native
