// Kernels on rows: one token's channels side by side. Dot products run in one chain of registers and are summed by the
// fixed tree of sumLanes, whatever the row's neighbours.
namespace hpformer::HPFORMER_ISA {
namespace {

HP_INLINE vf dotChain(const float* a, const float* b, int64_t width) {
  vf s{};
  int64_t i = 0;
  for (; i + W <= width; i += W) s = fma(load(a + i), load(b + i), s);
  if (i < width) s = fma(loadFirst(a + i, width - i), loadFirst(b + i, width - i), s);
  return s;
}

static float dot(const float* a, const float* b, int64_t width) { return sumLanes(dotChain(a, b, width)); }

static void axpy(float a, const float* x, float* y, int64_t width) {
  const vf w = set1(a);
  int64_t i = 0;
  for (; i + W <= width; i += W) store(y + i, fma(w, load(x + i), load(y + i)));
  if (i < width) storeFirst(y + i, fma(w, loadFirst(x + i, width - i), loadFirst(y + i, width - i)), width - i);
}

static void scaleRow(float a, const float* x, float* y, int64_t width) {
  const vf w = set1(a);
  int64_t i = 0;
  for (; i + W <= width; i += W) store(y + i, w * load(x + i));
  if (i < width) storeFirst(y + i, w * loadFirst(x + i, width - i), width - i);
}

// acc = acc * keep + sum_t p_t x_t (or of x_t alone) for V registers of columns: a row is read from left to right and
// the sums stay in registers, so that rows stream past once.
template <bool Weighted, int V>
HP_INLINE void addColumns(const float* x, int64_t ld, int64_t rows, const float* p, vf keep, float* acc) {
  vf s[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) s[v] = Weighted ? load(acc + v * W) * keep : load(acc + v * W);
  for (int64_t t = 0; t < rows; ++t, x += ld) {
    const vf w = Weighted ? set1(p[t]) : vf{};
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) s[v] = Weighted ? fma(w, load(x + v * W), s[v]) : s[v] + load(x + v * W);
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) store(acc + v * W, s[v]);
}

template <bool Weighted>
HP_INLINE void addRows(const float* x, int64_t ld, int64_t rows, int64_t width, const float* p, vf keep, float* acc) {
  int64_t i = 0;
  for (; i + 8 * W <= width; i += 8 * W) addColumns<Weighted, 8>(x + i, ld, rows, p, keep, acc + i);
  if (i + 4 * W <= width) {
    addColumns<Weighted, 4>(x + i, ld, rows, p, keep, acc + i);
    i += 4 * W;
  }
  for (; i + W <= width; i += W) addColumns<Weighted, 1>(x + i, ld, rows, p, keep, acc + i);
  if (i == width) return;
  const int64_t n = width - i;
  vf s = Weighted ? loadFirst(acc + i, n) * keep : loadFirst(acc + i, n);
  for (int64_t t = 0; t < rows; ++t) {
    const vf v = loadFirst(x + t * ld + i, n);
    s = Weighted ? fma(set1(p[t]), v, s) : s + v;
  }
  storeFirst(acc + i, s, n);
}

static void rowsSum(const float* x, int64_t ld, int64_t rows, int64_t width, float* acc) {
  addRows<false>(x, ld, rows, width, nullptr, vf{}, acc);
}

static void rowsMix(const float* x, int64_t ld, int64_t rows, int64_t width, const float* p, float* y) {
  for (int64_t i = 0; i < width; ++i) y[i] = 0.0f;
  addRows<true>(x, ld, rows, width, p, set1(1.0f), y);
}

static void rowsMax(const float* x, int64_t ld, int64_t rows, int64_t width, float* acc) {
  for (int64_t i = 0; i < width; i += W) {
    const int64_t n = width - i < W ? width - i : W;
    vf s = loadFirst(acc + i, n);
    for (int64_t t = 0; t < rows; ++t) {
      const vf v = loadFirst(x + t * ld + i, n);
      s = s != s ? s : max(s, v);  // a NaN stays, whichever side it came from
    }
    storeFirst(acc + i, s, n);
  }
}

static void layernormRow(const float* x, const float* weight, const float* bias, float* y, int64_t width) {
  const float inverse = 1.0f / static_cast<float>(width);
  vf s{};
  int64_t i = 0;
  for (; i + W <= width; i += W) s = s + load(x + i);
  if (i < width) s = s + loadFirst(x + i, width - i);
  const vf mean = set1(sumLanes(s) * inverse);
  s = vf{};
  for (i = 0; i + W <= width; i += W) {
    const vf d = load(x + i) - mean;
    s = fma(d, d, s);
  }
  float rest = 0;
  for (; i < width; ++i) {
    const float d = x[i] - mean[0];
    rest += d * d;
  }
  const vf scale = set1(1.0f) / sqrt(set1((sumLanes(s) + rest) * inverse + kEpsilon));
  for (i = 0; i + W <= width; i += W) store(y + i, fma((load(x + i) - mean) * scale, load(weight + i), load(bias + i)));
  if (i < width) {
    const int64_t n = width - i;
    storeFirst(y + i, fma((loadFirst(x + i, n) - mean) * scale, loadFirst(weight + i, n), loadFirst(bias + i, n)), n);
  }
}

static void softmaxRow(float* x, int64_t width, float scale) {
  float top = x[0];
  for (int64_t i = 1; i < width; ++i) top = x[i] > top ? x[i] : top;
  float sum = 0;
  for (int64_t i = 0; i < width; i += W) {
    const int64_t n = width - i < W ? width - i : W;
    storeFirst(x + i, exp((loadFirst(x + i, n) - set1(top)) * set1(scale)), n);
  }
  for (int64_t i = 0; i < width; ++i) sum += x[i];
  const float inverse = 1.0f / sum;
  for (int64_t i = 0; i < width; ++i) x[i] *= inverse;
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
