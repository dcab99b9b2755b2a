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

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
