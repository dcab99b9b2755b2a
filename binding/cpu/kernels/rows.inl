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

static void rowsSum(const float* x, int64_t ld, int64_t rows, int64_t width, float* acc) {
  for (int64_t i = 0; i < width; i += W) {
    const int64_t n = width - i;
    vf s = n >= W ? load(acc + i) : loadFirst(acc + i, n);
    if (n >= W) {
      for (int64_t t = 0; t < rows; ++t) s = s + load(x + t * ld + i);
      store(acc + i, s);
    } else {
      for (int64_t t = 0; t < rows; ++t) s = s + loadFirst(x + t * ld + i, n);
      storeFirst(acc + i, s, n);
    }
  }
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
