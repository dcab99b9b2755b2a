// Norms over the channel axis in lanes. Sums run over channels in four interleaved chains (channel mod 4), combined as
// (s0 + s1) + (s2 + s3); variance is taken around the mean in a second pass, so that large means cost no digits.
namespace hpformer::HPFORMER_ISA {
namespace {

constexpr float kEpsilon = 1e-5f;

HP_INLINE vf laneSum(const float* x, int64_t ld, int64_t channels) {
  vf s0{}, s1{}, s2{}, s3{};
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    s0 = s0 + load(x + c * ld);
    s1 = s1 + load(x + (c + 1) * ld);
    s2 = s2 + load(x + (c + 2) * ld);
    s3 = s3 + load(x + (c + 3) * ld);
  }
  if (c < channels) s0 = s0 + load(x + c * ld);
  if (c + 1 < channels) s1 = s1 + load(x + (c + 1) * ld);
  if (c + 2 < channels) s2 = s2 + load(x + (c + 2) * ld);
  return (s0 + s1) + (s2 + s3);
}

HP_INLINE vf laneSquares(const float* x, int64_t ld, int64_t channels, vf mean) {
  vf s0{}, s1{}, s2{}, s3{};
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    const vf d0 = load(x + c * ld) - mean, d1 = load(x + (c + 1) * ld) - mean;
    const vf d2 = load(x + (c + 2) * ld) - mean, d3 = load(x + (c + 3) * ld) - mean;
    s0 = fma(d0, d0, s0);
    s1 = fma(d1, d1, s1);
    s2 = fma(d2, d2, s2);
    s3 = fma(d3, d3, s3);
  }
  if (c < channels) {
    const vf d = load(x + c * ld) - mean;
    s0 = fma(d, d, s0);
  }
  if (c + 1 < channels) {
    const vf d = load(x + (c + 1) * ld) - mean;
    s1 = fma(d, d, s1);
  }
  if (c + 2 < channels) {
    const vf d = load(x + (c + 2) * ld) - mean;
    s2 = fma(d, d, s2);
  }
  return (s0 + s1) + (s2 + s3);
}

static void norm(const NormLanes& n) {
  const float inverse = 1.0f / static_cast<float>(n.channels);
  for (int64_t col = 0; col < n.cols; col += W) {
    const float* x = n.x + col;
    float* y = n.y + col;
    switch (n.form) {
      case NormForm::layernorm: {
        const vf mean = laneSum(x, n.ld, n.channels) * set1(inverse);
        const vf variance = laneSquares(x, n.ld, n.channels, mean) * set1(inverse);
        const vf scale = set1(1.0f) / sqrt(variance + set1(kEpsilon));
        for (int64_t c = 0; c < n.channels; ++c)
          store(y + c * n.ld, fma((load(x + c * n.ld) - mean) * scale, set1(n.weight[c]), set1(n.bias[c])));
        break;
      }
      case NormForm::rms: {
        const vf square = laneSquares(x, n.ld, n.channels, vf{}) * set1(inverse);
        const vf scale = set1(1.0f) / sqrt(square + set1(kEpsilon));
        for (int64_t c = 0; c < n.channels; ++c) store(y + c * n.ld, load(x + c * n.ld) * scale * set1(n.weight[c]));
        break;
      }
      case NormForm::affine:
        for (int64_t c = 0; c < n.channels; ++c)
          store(y + c * n.ld, fma(load(x + c * n.ld), set1(n.weight[c]), set1(n.bias[c])));
        break;
      case NormForm::batchnorm:
        for (int64_t c = 0; c < n.channels; ++c) {
          const vf scale = set1(1.0f) / sqrt(set1(n.variance[c] + kEpsilon));
          store(y + c * n.ld, fma((load(x + c * n.ld) - set1(n.mean[c])) * scale, set1(n.weight[c]), set1(n.bias[c])));
        }
        break;
    }
  }
}

// One token's channels in a row, with the bits that `norm` gives it in any lane: the four chains are the four lanes of a
// small register.
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
  for (int64_t c = 0; c < n.channels; c += W) {
    const int64_t count = n.channels - c < W ? n.channels - c : W;
    const vf x = loadFirst(n.x + c, count), w = loadFirst(n.weight + c, count);
    const vf bias = n.form == NormForm::rms ? vf{} : loadFirst(n.bias + c, count);
    vf y{};
    switch (n.form) {
      case NormForm::layernorm: y = fma((x - mean) * scale, w, bias); break;
      case NormForm::rms: y = x * scale * w; break;
      case NormForm::affine: y = fma(x, w, bias); break;
      case NormForm::batchnorm: {
        const vf by = set1(1.0f) / sqrt(loadFirst(n.variance + c, count) + set1(kEpsilon));
        y = fma((x - loadFirst(n.mean + c, count)) * by, w, bias);
        break;
      }
    }
    storeFirst(n.y + c, y, count);
  }
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
