// Elementwise functions over a register. Errors measured against double: exp 1.6e-7 relative on [-87, 88], powerOfTwo
// 8e-8 on [-126, 0]; and by
// test/native/kernels_test.cc, sigmoid 1.3e-7 relative on [-87, 87]; x phi(x), phi the normal CDF, 4e-7
// relative above -1, below it 1.7e-7 of 1 + |x|: 1 - erf cancels there, as in the published code.
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

// 2^y for the y <= 0 of a softmax; below -126 the smallest normal number stands in; NaN stays NaN. With y = n + r,
// |r| <= 1/2: n comes out in the low bits of y + magic.
HP_INLINE vf powerOfTwo(vf y) {
  const vf magic = set1(12582912.0f);
  y = max(set1(-126.0f), y);
  const vf t = y + magic, r = y - (t - magic);
  vf p = set1(0.00015353351773228496f);
  p = fma(p, r, set1(0.0013398887822404504f));
  p = fma(p, r, set1(0.009618437848985195f));
  p = fma(p, r, set1(0.055503323674201965f));
  p = fma(p, r, set1(0.24022647738456726f));
  p = fma(p, r, set1(0.6931471824645996f));
  p = fma(p, r, set1(1.0f));
  return p * asFloat((asInt(t) << 23) + 0x3f800000);
}
constexpr float kLog2E = 1.44269504088896f;

HP_INLINE vf sigmoid(vf x) { return set1(1.0f) / (set1(1.0f) + exp(vf{} - x)); }

// Normal CDF as 1/2 + x P(x^2) / Q(x^2), a minimax quotient on [-5.5, 5.5], 7e-9 from the function; beyond, it grows
// past 1/2 and is cut there, so that the ends are exactly 0 and 1. No exponential: half the operations.
HP_INLINE vf phi(vf x) {
  const vf z = min(set1(30.25f), x * x);
  vf p = set1(2.2749329531279727e-08f);
  p = fma(p, z, set1(6.352130185405258e-06f));
  p = fma(p, z, set1(0.00016882698400877416f));
  p = fma(p, z, set1(0.004677268676459789f));
  p = fma(p, z, set1(0.033852770924568176f));
  p = fma(p, z, set1(0.398942232131958f));
  vf q = set1(1.1975038205491728e-06f);
  q = fma(q, z, set1(7.36479414626956e-05f));
  q = fma(q, z, set1(0.0018844521837309003f));
  q = fma(q, z, set1(0.028645943850278854f));
  q = fma(q, z, set1(0.2515222430229187f));
  q = fma(q, z, set1(1.0f));
  return set1(0.5f) + max(set1(-0.5f), min(set1(0.5f), x * p / q));
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
