// Activations in the layout of the CPU kernels, and what every attention here is made of: linear layers, packed keys
// and values, and softmax attention of one tile of queries against blocks of keys with a running maximum.
#pragma once
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "binding/cpu/kernels.h"
#include "binding/cpu/packed.h"
#include "binding/cpu/threads.h"

namespace hpformer::peers {

// [tile][channel][lane]: `lanes` tokens side by side. Idle lanes of the last tile hold finite numbers.
struct Tiles {
  Tiles() = default;
  Tiles(int64_t channels, int64_t tokens, int64_t lanes);
  float* tile(int64_t i) { return data.data() + i * channels * lanes; }
  const float* tile(int64_t i) const { return data.data() + i * channels * lanes; }
  float& at(int64_t channel, int64_t token) { return tile(token / lanes)[channel * lanes + token % lanes]; }
  float at(int64_t channel, int64_t token) const { return tile(token / lanes)[channel * lanes + token % lanes]; }
  int64_t channels = 0, tokens = 0, lanes = 0, count = 0;
  Floats data;
};

// Double matrices of the references: [row][column], tokens are rows.
struct Matrix {
  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), data(static_cast<std::size_t>(r * c)) {}
  double& at(int64_t r, int64_t c) { return data[static_cast<std::size_t>(r * columns + c)]; }
  double at(int64_t r, int64_t c) const { return data[static_cast<std::size_t>(r * columns + c)]; }
  double* row(int64_t r) { return data.data() + r * columns; }
  const double* row(int64_t r) const { return data.data() + r * columns; }
  Matrix slice(int64_t column, int64_t width) const;
  int64_t rows = 0, columns = 0;
  std::vector<double> data;
};

// Eight sums side by side, so that the compiler may use vectors.
template <typename A, typename B>
double dot(const A* a, const B* b, int64_t n) {
  double part[8] = {}, sum = 0;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t k = 0; k < 8; ++k) part[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const double p : part) sum += p;
  return sum;
}
inline void addScaled(double* y, double factor, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

// y = W x + b, W [rows][depth]. Weights are float32 numbers; the reference reads the same ones in double.
class Linear {
 public:
  Linear() = default;
  Linear(int64_t rows, int64_t depth, bool bias, std::mt19937& random);
  void tile(const float* x, float* y, int64_t lanes, int activation = 0, const float* residual = nullptr) const;
  void all(const Tiles& x, Tiles& y, int threads, int activation = 0) const;
  Matrix reference(const Matrix& x) const;
  int64_t parameters() const { return rows * depth + static_cast<int64_t>(bias.size()); }
  int64_t rows = 0, depth = 0;
  std::vector<float> weight, bias;

 private:
  Floats packed_, bias_;
};

// Panels for the A operand of the GEMM kernel.
Floats packRows(const float* matrix, int64_t rows, int64_t depth);
int64_t panelFloats(int64_t rows, int64_t depth);
// Keys: rows are tokens `token(0..count-1)`, depth are `width` channels from `channel`.
void packKeys(const Tiles& x, int64_t channel, int64_t width, int64_t count,
              const std::function<int64_t(int64_t)>& token, float* panels);
// Values: rows are channels, depth are tokens.
void packValues(const Tiles& x, int64_t channel, int64_t width, int64_t count,
                const std::function<int64_t(int64_t)>& token, float* panels);
// All keys and values of one head, in order.
struct PackedHeadKeys {
  PackedHeadKeys(const Tiles& k, int64_t keyChannel, const Tiles& v, int64_t valueChannel, int64_t width);
  int64_t tokens, width;
  Floats keys, values;
};

// C = A X with explicit strides; `packed` as in the kernel's struct.
void gemm(const float* a, int64_t rows, int64_t depth, const float* x, int64_t ldx, float* c, int64_t ldc, int64_t cols,
          const float* bias = nullptr, const float* residual = nullptr, int activation = 0, int64_t packed = 0);

// Softmax attention of `lanes` queries of one head, online over blocks of keys.
class TileAttention {
 public:
  TileAttention(int64_t width, int64_t lanes, int64_t blockMax);
  // q: lanes [width][lanes]; scores are scale * q.k
  void begin(const float* q, float scale);
  // `keys` panels start at the block; `values` panels start at the block and have depth `valueDepth` per panel.
  // `edit(scores)` may add to or overwrite scores [count][lanes] before the softmax.
  void block(const float* keys, const float* values, int64_t valueDepth, int64_t count, const float* keyBias = nullptr,
             const std::function<void(float*)>& edit = nullptr);
  // out: lanes [width][lanes]; logSumExp [lanes] when wanted.
  void finish(float* out, float* logSumExp = nullptr);
  static constexpr float kMasked = -1e30f;

 private:
  int64_t width_, lanes_;
  Floats q_, scores_, acc_, max_, sum_, factor_;
};

// Elementwise helpers over contiguous floats (count a multiple of 8 or not).
void expShifted(float* x, int64_t rows, int64_t lanes, const float* shift);  // x = exp(x - shift[lane])
void eluPlusOne(float* x, int64_t count);
void columnMax(const float* x, int64_t rows, int64_t lanes, float* max);

Matrix softmaxRows(Matrix scores);
std::vector<float> gaussian(int64_t count, float deviation, std::mt19937& random);

}  // namespace hpformer::peers
