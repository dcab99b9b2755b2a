#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "binding/cpu/isa/simd.h"
#include "binding/cpu/kernels/math.inl"

namespace hpformer::peers {

Tiles::Tiles(int64_t c, int64_t t, int64_t l)
    : channels(c), tokens(t), lanes(l), count((t + l - 1) / l), data(count * c * l) {
  std::fill(data.data(), data.data() + data.size(), 0.0f);
}

std::vector<float> gaussian(int64_t count, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = normal(random);
  return out;
}

int64_t panelFloats(int64_t rows, int64_t depth) {
  const int64_t panel = kernels().panel;
  return (rows + panel - 1) / panel * panel * depth;
}

Floats packRows(const float* matrix, int64_t rows, int64_t depth) {
  const int64_t panel = kernels().panel;
  Floats out(panelFloats(rows, depth));
  std::fill(out.data(), out.data() + out.size(), 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    float* p = out.data() + r / panel * panel * depth + r % panel;
    for (int64_t k = 0; k < depth; ++k) p[k * panel] = matrix[r * depth + k];
  }
  return out;
}

Linear::Linear(int64_t r, int64_t d, bool withBias, std::mt19937& random) : rows(r), depth(d) {
  weight = gaussian(r * d, 1.0f / std::sqrt(static_cast<float>(d)), random);
  packed_ = packRows(weight.data(), r, d);
  if (!withBias) return;
  bias = gaussian(r, 0.1f, random);
  const int64_t padded = (r + 15) / 16 * 16;
  bias_ = Floats(padded);
  std::fill(bias_.data(), bias_.data() + padded, 0.0f);
  std::copy(bias.begin(), bias.end(), bias_.data());
}

void gemm(const float* a, int64_t rows, int64_t depth, const float* x, int64_t ldx, float* c, int64_t ldc, int64_t cols,
          const float* bias, const float* residual, int activation, int64_t packed) {
  Gemm g;
  g.a = a;
  g.rows = rows;
  g.k = depth;
  g.packed = packed;
  g.x = x;
  g.ldx = ldx;
  g.c = c;
  g.ldc = ldc;
  g.cols = cols;
  g.bias = bias;
  g.residual = residual;
  g.activation = activation;
  kernels().gemm(g);
}

void Linear::tile(const float* x, float* y, int64_t lanes, int activation, const float* residual) const {
  gemm(packed_.data(), rows, depth, x, lanes, y, lanes, lanes, bias.empty() ? nullptr : bias_.data(), residual,
       activation);
}

void Linear::all(const Tiles& x, Tiles& y, int threads, int activation) const {
  parallelFor(x.count, threads, [&](int64_t i) { tile(x.tile(i), y.tile(i), x.lanes, activation); });
}

Matrix Linear::reference(const Matrix& x) const {
  Matrix y(x.rows, rows);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t r = 0; r < rows; ++r)
      y.at(t, r) =
          (bias.empty() ? 0.0 : bias[static_cast<std::size_t>(r)]) + dot(x.row(t), weight.data() + r * depth, depth);
  return y;
}

Matrix Matrix::slice(int64_t column, int64_t width) const {
  Matrix part(rows, width);
  for (int64_t r = 0; r < rows; ++r) std::copy(row(r) + column, row(r) + column + width, part.row(r));
  return part;
}

void packKeys(const Tiles& x, int64_t channel, int64_t width, int64_t count,
              const std::function<int64_t(int64_t)>& token, float* panels) {
  const int64_t panel = kernels().panel;
  for (int64_t first = 0; first < count; first += panel) {
    float* p = panels + first * width;
    for (int64_t r = 0; r < panel; ++r) {
      if (first + r >= count) {
        for (int64_t k = 0; k < width; ++k) p[k * panel + r] = 0.0f;
        continue;
      }
      const int64_t t = token(first + r);
      const float* source = x.tile(t / x.lanes) + channel * x.lanes + t % x.lanes;
      for (int64_t k = 0; k < width; ++k) p[k * panel + r] = source[k * x.lanes];
    }
  }
}

void packValues(const Tiles& x, int64_t channel, int64_t width, int64_t count,
                const std::function<int64_t(int64_t)>& token, float* panels) {
  const int64_t panel = kernels().panel;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t t = token(j);
    const float* source = x.tile(t / x.lanes) + channel * x.lanes + t % x.lanes;
    for (int64_t first = 0; first < width; first += panel) {
      float* p = panels + first * count + j * panel;
      for (int64_t r = 0; r < panel; ++r) p[r] = first + r < width ? source[(first + r) * x.lanes] : 0.0f;
    }
  }
}

PackedHeadKeys::PackedHeadKeys(const Tiles& k, int64_t keyChannel, const Tiles& v, int64_t valueChannel, int64_t w)
    : tokens(k.tokens), width(w), keys(panelFloats(k.tokens, w)), values(panelFloats(w, v.tokens)) {
  const auto same = [](int64_t t) { return t; };
  packKeys(k, keyChannel, w, tokens, same, keys.data());
  packValues(v, valueChannel, w, tokens, same, values.data());
}

TileAttention::TileAttention(int64_t width, int64_t lanes, int64_t blockMax)
    : width_(width),
      lanes_(lanes),
      q_(width * lanes),
      scores_((blockMax + 8) * lanes),
      acc_((width + 8) * lanes),
      max_(lanes),
      sum_(lanes),
      factor_(lanes) {}

void TileAttention::begin(const float* q, float scale) {
  for (int64_t i = 0; i < width_ * lanes_; ++i) q_.data()[i] = q[i] * scale;
  std::fill(acc_.data(), acc_.data() + acc_.size(), 0.0f);
  std::fill(max_.data(), max_.data() + lanes_, kMasked);
  std::fill(sum_.data(), sum_.data() + lanes_, 0.0f);
}

void TileAttention::block(const float* keys, const float* values, int64_t valueDepth, int64_t count,
                          const float* keyBias, const std::function<void(float*)>& edit) {
  float* s = scores_.data();
  gemm(keys, count, width_, q_.data(), lanes_, s, lanes_, lanes_, keyBias);
  if (edit) edit(s);
  for (int64_t lane = 0; lane < lanes_; lane += W) {
    const vf old = load(max_.data() + lane);
    vf top = old;
    for (int64_t j = 0; j < count; ++j) top = max(top, load(s + j * lanes_ + lane));
    const vf factor = exp(old - top);
    vf sum = load(sum_.data() + lane) * factor;
    for (int64_t j = 0; j < count; ++j) {
      const vf p = exp(load(s + j * lanes_ + lane) - top);
      sum = sum + p;
      store(s + j * lanes_ + lane, p);
    }
    store(max_.data() + lane, top);
    store(sum_.data() + lane, sum);
    for (int64_t c = 0; c < width_; ++c) {
      float* a = acc_.data() + c * lanes_ + lane;
      store(a, load(a) * factor);
    }
  }
  gemm(values, width_, count, s, lanes_, acc_.data(), lanes_, lanes_, nullptr, acc_.data(), 0, valueDepth);
}

void TileAttention::finish(float* out, float* logSumExp) {
  for (int64_t lane = 0; lane < lanes_; ++lane) factor_.data()[lane] = 1.0f / sum_.data()[lane];
  for (int64_t c = 0; c < width_; ++c)
    for (int64_t lane = 0; lane < lanes_; ++lane)
      out[c * lanes_ + lane] = acc_.data()[c * lanes_ + lane] * factor_.data()[lane];
  if (logSumExp)
    for (int64_t lane = 0; lane < lanes_; ++lane) logSumExp[lane] = max_.data()[lane] + std::log(sum_.data()[lane]);
}

void expShifted(float* x, int64_t rows, int64_t lanes, const float* shift) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t lane = 0; lane < lanes; lane += W) {
      float* p = x + r * lanes + lane;
      store(p, exp(load(p) - load(shift + lane)));
    }
}

void eluPlusOne(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += W) {
    const vf v = load(x + i);
    const vf negative = exp(min(v, vf{}));
    store(x + i, v > vf{} ? v + set1(1.0f) : negative);
  }
}

void columnMax(const float* x, int64_t rows, int64_t lanes, float* out) {
  std::copy(x, x + lanes, out);
  for (int64_t r = 1; r < rows; ++r)
    for (int64_t lane = 0; lane < lanes; ++lane) out[lane] = std::max(out[lane], x[r * lanes + lane]);
}

Matrix softmaxRows(Matrix scores) {
  for (int64_t r = 0; r < scores.rows; ++r) {
    double top = scores.at(r, 0), sum = 0;
    for (int64_t c = 1; c < scores.columns; ++c) top = std::max(top, scores.at(r, c));
    for (int64_t c = 0; c < scores.columns; ++c) sum += scores.at(r, c) = std::exp(scores.at(r, c) - top);
    for (int64_t c = 0; c < scores.columns; ++c) scores.at(r, c) /= sum;
  }
  return scores;
}

}  // namespace hpformer::peers
