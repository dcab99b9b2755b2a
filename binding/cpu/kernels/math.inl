// Elementwise functions over a register. Errors measured against double: exp 1.6e-7 relative on [-87, 88]; and by
// test/native/kernels_test.cc, sigmoid 1.3e-7 relative on [-87, 87]; x phi(x), phi the normal CDF, 6e-7 relative on
// [-4, 4] and 8e-6 on [-12, 12], where the rounding of x^2 / 2 shows in exp, never above 4e-7 of 1 + |x|.
namespace hpformer::HPFORMER_ISA {
namespace {

// e^x = 2^n e^r with |r| <= ln2 / 2. Below -87.3 the smallest normal number stands in; NaN stays NaN.
HP_INLINE vf exp(vf x) {
  x = min(set1(88.3762626647949f), max(set1(-87.3365447504f), x));
  const vf magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vf n = fma(x, set1(1.44269504088896f), magic) - magic;
  vf r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  vf p = set1(0.001381459878757596f);
  p = fma(p, r, set1(0.008368716575205326f));
  p = fma(p, r, set1(0.04166838899254799f));
  p = fma(p, r, set1(0.1666652113199234f));
  p = fma(p, r, set1(0.4999999403953552f));
  p = fma(p, r * r, r) + set1(1.0f);
  const vi e = (__builtin_convertvector(n, vi) + 127) << 23;
  return p * asFloat(e);
}

HP_INLINE vf sigmoid(vf x) { return set1(1.0f) / (set1(1.0f) + exp(vf{} - x)); }

// Normal CDF: the upper tail is exp(-x^2/2) times a polynomial in 1 / (1 + 0.3 |x|), fitted for relative error.
HP_INLINE vf phi(vf x) {
  const vf y = asFloat(asInt(x) & 0x7fffffff);
  const vf t = set1(1.0f) / fma(set1(0.3f), y, set1(1.0f));
  vf p = set1(0.036213699728250504f);
  p = fma(p, t, set1(-0.1583564728498459f));
  p = fma(p, t, set1(0.20562045276165009f));
  p = fma(p, t, set1(-0.04917953163385391f));
  p = fma(p, t, set1(0.12284167110919952f));
  p = fma(p, t, set1(0.10350014269351959f));
  p = fma(p, t, set1(0.11952914297580719f));
  p = fma(p, t, set1(0.11984654515981674f));
  p = fma(p, t, set1(-1.5635545423720032e-05f));
  const vf tail = p * exp(x * x * set1(-0.5f));
  return x < vf{} ? tail : set1(1.0f) - tail;
}

// Ordinals of contract/spec.h's Activation.
template <int A>
HP_INLINE vf activate(vf x) {
  if constexpr (A == 1) return max(vf{}, x);
  if constexpr (A == 2) return x * sigmoid(x);
  if constexpr (A == 3) return x * phi(x);
  if constexpr (A == 4) {  // tanh form: 0.5 (1 + tanh u) is sigmoid(2u)
    const vf u = x * fma(x * x, set1(0.044715f), set1(1.0f));
    return x * sigmoid(u * set1(1.5957691216057308f));
  }
  return x;
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
