// Norms over the channel axis in lanes. Sums run over channels in four interleaved chains (channel mod 4), combined as
// (s0 + s1) + (s2 + s3); variance is taken around the mean in a second pass, so that large means cost no digits.
namespace hpformer::HPFORMER_ISA {
namespace {

constexpr float kEpsilon = 1e-5f;

// Sum (or sum of squares around `mean`) over the channels of V registers of lanes.
template <int V, bool Square>
HP_INLINE void laneChains(const float* x, int64_t ld, int64_t channels, const vf (&mean)[V], vf (&out)[V]) {
  vf s[4][V];
  for (int j = 0; j < 4; ++j)
    for (int v = 0; v < V; ++v) s[j][v] = vf{};
  const auto add = [&](vf & sum, const float* p, int v) __attribute__((always_inline)) {
    if constexpr (Square) {
      const vf d = load(p) - mean[v];
      sum = fma(d, d, sum);
    } else {
      sum = sum + load(p);
    }
  };
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4, x += 4 * ld)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) add(s[j][v], x + j * ld + v * W, v);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j)
    if (c + j < channels)
      for (int v = 0; v < V; ++v) add(s[j][v], x + j * ld + v * W, v);
  for (int v = 0; v < V; ++v) out[v] = (s[0][v] + s[1][v]) + (s[2][v] + s[3][v]);
}

template <int V>
HP_INLINE void normLanes(const NormLanes& n, int64_t col) {
  const float* x = n.x + col;
  float* y = n.y + col;
  const vf inverse = set1(1.0f / static_cast<float>(n.channels));
  vf mean[V], scale[V];
  for (int v = 0; v < V; ++v) mean[v] = scale[v] = vf{};
  if (n.form == NormForm::layernorm) {
    laneChains<V, false>(x, n.ld, n.channels, mean, scale);
    for (int v = 0; v < V; ++v) mean[v] = scale[v] * inverse;
  }
  if (n.form == NormForm::layernorm || n.form == NormForm::rms) {
    vf square[V];
    laneChains<V, true>(x, n.ld, n.channels, mean, square);
    for (int v = 0; v < V; ++v) scale[v] = set1(1.0f) / sqrt(square[v] * inverse + set1(kEpsilon));
  }
  // Copies: a store might change `n` for all that the compiler knows. Weight and bias are broadcast once for all
  // registers.
  const float *const weight = n.weight, *const bias = n.bias;
  const int64_t ld = n.ld, channels = n.channels;
  const auto each = [=](auto&& value) __attribute__((always_inline)) {
    for (int64_t c = 0; c < channels; ++c) {
      const vf w = set1(weight[c]), b = bias ? set1(bias[c]) : vf{};
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) store(y + c * ld + v * W, value(load(x + c * ld + v * W), w, b, c, v));
    }
  };
  switch (n.form) {
    case NormForm::layernorm:
      return each([&](vf a, vf w, vf b, int64_t, int v) { return fma((a - mean[v]) * scale[v], w, b); });
    case NormForm::rms: return each([&](vf a, vf w, vf, int64_t, int v) { return a * scale[v] * w; });
    case NormForm::affine: return each([&](vf a, vf w, vf b, int64_t, int) { return fma(a, w, b); });
    case NormForm::batchnorm:
      return each([&](vf a, vf w, vf b, int64_t c, int) {
        const vf by = set1(1.0f) / sqrt(set1(n.variance[c] + kEpsilon));
        return fma((a - set1(n.mean[c])) * by, w, b);
      });
  }
}

static void norm(const NormLanes& n) {
  int64_t col = 0;
  const int64_t all = (n.cols + W - 1) / W * W;
  for (; col + 3 * W <= all && col + 4 * W != all; col += 3 * W) normLanes<3>(n, col);
  for (; col + 2 * W <= all; col += 2 * W) normLanes<2>(n, col);
  if (col < all) normLanes<1>(n, col);
}

// One token's channels in a row, with the bits that `norm` gives it in any lane: the four chains are the four lanes of
// a small register.
typedef float vq __attribute__((vector_size(16)));
typedef float vqu __attribute__((vector_size(16), aligned(4), may_alias));

HP_INLINE vq fmaQuad(vq a, vq c) {
#if defined(__FMA__)
  return (vq)_mm_fmadd_ps((__m128)a, (__m128)a, (__m128)c);
#elif defined(__aarch64__)
  return (vq)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)a);
#else
  return a * a + c;
#endif
}

template <bool Square>
HP_INLINE float rowChains(const float* x, int64_t channels, float mean) {
  vq s{};
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    const vq v = *reinterpret_cast<const vqu*>(x + c);
    s = Square ? fmaQuad(v - mean, s) : s + v;
  }
  if (c < channels) {
    vq v{};
    for (int64_t i = 0; c + i < channels; ++i) v[i] = x[c + i] - (Square ? mean : 0.0f);
    s = Square ? fmaQuad(v, s) : s + v;
  }
  return (s[0] + s[1]) + (s[2] + s[3]);
}

static void normRow(const NormLanes& n) {
  const float inverse = 1.0f / static_cast<float>(n.channels);
  vf mean{}, scale{};
  if (n.form == NormForm::layernorm) {
    mean = set1(rowChains<false>(n.x, n.channels, 0) * inverse);
    scale = set1(1.0f) / sqrt(set1(rowChains<true>(n.x, n.channels, mean[0]) * inverse) + set1(kEpsilon));
  } else if (n.form == NormForm::rms) {
    scale = set1(1.0f) / sqrt(set1(rowChains<true>(n.x, n.channels, 0) * inverse) + set1(kEpsilon));
  }
  const auto each = [&n](auto&& value) __attribute__((always_inline)) {
    const float *const x = n.x, *const weight = n.weight, *const bias = n.bias;
    float* const y = n.y;
    const int64_t channels = n.channels;
    int64_t c = 0;
    for (; c + W <= channels; c += W)
      store(y + c, value(load(x + c), load(weight + c), bias ? load(bias + c) : vf{}, c, W));
    if (const int64_t left = channels - c; left > 0)
      storeFirst(
          y + c,
          value(loadFirst(x + c, left), loadFirst(weight + c, left), bias ? loadFirst(bias + c, left) : vf{}, c, left),
          left);
  };
  switch (n.form) {
    case NormForm::layernorm:
      return each([&](vf x, vf w, vf b, int64_t, int64_t) { return fma((x - mean) * scale, w, b); });
    case NormForm::rms: return each([&](vf x, vf w, vf, int64_t, int64_t) { return x * scale * w; });
    case NormForm::affine: return each([&](vf x, vf w, vf b, int64_t, int64_t) { return fma(x, w, b); });
    case NormForm::batchnorm:
      return each([&](vf x, vf w, vf b, int64_t c, int64_t count) {
        const vf by = set1(1.0f) / sqrt(loadFirst(n.variance + c, count) + set1(kEpsilon));
        return fma((x - loadFirst(n.mean + c, count)) * by, w, b);
      });
  }
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
