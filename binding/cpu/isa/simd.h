// SIMD in the width of this ISA level: arithmetic by the compiler's vector types, intrinsics where those have no word.
// Included once per level inside its own object; everything is static, so nothing here can become a weak symbol.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef HPFORMER_LANES  // a test builds the wide form on a narrow machine by setting this
#if defined(__AVX512F__)
#define HPFORMER_LANES 16
#elif defined(__AVX2__)
#define HPFORMER_LANES 8
#else
#define HPFORMER_LANES 4
#endif
#endif

namespace hpformer::HPFORMER_ISA {
namespace {

constexpr int64_t W = HPFORMER_LANES;
typedef float vf __attribute__((vector_size(4 * HPFORMER_LANES)));
typedef float vfu __attribute__((vector_size(4 * HPFORMER_LANES), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * HPFORMER_LANES)));

#define HP_INLINE static inline __attribute__((always_inline))

HP_INLINE vf load(const float* p) { return *reinterpret_cast<const vfu*>(p); }
HP_INLINE void store(float* p, vf v) { *reinterpret_cast<vfu*>(p) = v; }
HP_INLINE vf set1(float x) { return x - vf{}; }
HP_INLINE vi asInt(vf v) { return reinterpret_cast<vi>(v); }
HP_INLINE vf asFloat(vi v) { return reinterpret_cast<vf>(v); }

// The first n lanes (0 < n <= W), reading and writing nothing beyond them; the other lanes are 0.
#if HPFORMER_LANES == 16 && defined(__AVX512F__)
HP_INLINE vf loadFirst(const float* p, int64_t n) {
  return (vf)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
HP_INLINE void storeFirst(float* p, vf v, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
#elif HPFORMER_LANES == 8 && defined(__AVX2__)
HP_INLINE __m256i firstMask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
HP_INLINE vf loadFirst(const float* p, int64_t n) { return (vf)_mm256_maskload_ps(p, firstMask(n)); }
HP_INLINE void storeFirst(float* p, vf v, int64_t n) { _mm256_maskstore_ps(p, firstMask(n), (__m256)v); }
#else
HP_INLINE vf loadFirst(const float* p, int64_t n) {
  vf v{};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
HP_INLINE void storeFirst(float* p, vf v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}
#endif

// The masked forms for 16 lanes spare gcc 12 a false warning; an all-ones mask costs nothing.
// fma: one rounding where the machine has it. max/min: the second operand when either is NaN, so max(0, x) keeps a NaN
// x.
#if HPFORMER_LANES == 16 && defined(__AVX512F__)
HP_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
HP_INLINE vf max(vf a, vf b) { return (vf)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
HP_INLINE vf min(vf a, vf b) { return (vf)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
HP_INLINE vf sqrt(vf a) { return (vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)a); }
#elif HPFORMER_LANES == 8 && defined(__AVX2__)
HP_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
HP_INLINE vf max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
HP_INLINE vf min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
HP_INLINE vf sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
#elif HPFORMER_LANES == 16 && \
    defined(__AVX2__)  // the test levels: two halves (left to the compiler, this takes it minutes)
struct Halves {
  __m256 low, high;
};
HP_INLINE Halves halves(vf a) { return __builtin_bit_cast(Halves, a); }
HP_INLINE vf whole(__m256 low, __m256 high) { return __builtin_bit_cast(vf, Halves{low, high}); }
HP_INLINE vf fma(vf a, vf b, vf c) {
  const Halves x = halves(a), y = halves(b), z = halves(c);
  return whole(_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high));
}
HP_INLINE vf max(vf a, vf b) {
  const Halves x = halves(a), y = halves(b);
  return whole(_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high));
}
HP_INLINE vf min(vf a, vf b) {
  const Halves x = halves(a), y = halves(b);
  return whole(_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high));
}
HP_INLINE vf sqrt(vf a) { return whole(_mm256_sqrt_ps(halves(a).low), _mm256_sqrt_ps(halves(a).high)); }
#elif HPFORMER_LANES == 4 && defined(__aarch64__)
HP_INLINE vf fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
HP_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
HP_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
HP_INLINE vf sqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
#elif HPFORMER_LANES == 4 && defined(__SSE2__)
HP_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
HP_INLINE vf max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
HP_INLINE vf min(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
HP_INLINE vf sqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
#else
HP_INLINE vf fma(vf a, vf b, vf c) {
  vf r;
  for (int64_t i = 0; i < W; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
HP_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
HP_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
HP_INLINE vf sqrt(vf a) {
  vf r;
  for (int64_t i = 0; i < W; ++i) r[i] = __builtin_sqrtf(a[i]);
  return r;
}
#endif

// 16-bit integers in pairs, on levels that have no bfloat16: a lane of `addPairs` is c and the sum of its two products,
// one of `pairOf` holds (a, b). `nearest` is some value with a low half of zero beyond 32 bits and for NaN.
#if !HPFORMER_TILES && ((HPFORMER_LANES == 16 && (defined(__AVX512VNNI__) || !defined(__AVX512F__))) || \
                        (HPFORMER_LANES == 8 && defined(__AVX2__)) || (HPFORMER_LANES == 4 && defined(__SSE2__)))
#define HPFORMER_FIXED 1
#if defined(__AVX512VNNI__)
HP_INLINE vi addPairs(vi c, vi a, vi b) { return (vi)_mm512_dpwssd_epi32((__m512i)c, (__m512i)a, (__m512i)b); }
HP_INLINE vi nearest(vf v) { return (vi)_mm512_maskz_cvtps_epi32(0xffff, (__m512)v); }
HP_INLINE vi pairOf(vi a, vi b) {
  return (vi)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)a, _mm512_maskz_slli_epi32(0xffff, (__m512i)b, 16));
}
HP_INLINE vi larger(vi a, vi b) { return (vi)_mm512_maskz_max_epi32(0xffff, (__m512i)a, (__m512i)b); }
#elif HPFORMER_LANES == 16
struct IntHalves {
  __m256i low, high;
};
HP_INLINE IntHalves intHalves(vi a) { return __builtin_bit_cast(IntHalves, a); }
HP_INLINE vi intWhole(__m256i low, __m256i high) { return __builtin_bit_cast(vi, IntHalves{low, high}); }
HP_INLINE vi addPairs(vi c, vi a, vi b) {
  const IntHalves x = intHalves(a), y = intHalves(b), z = intHalves(c);
  return intWhole(_mm256_add_epi32(z.low, _mm256_madd_epi16(x.low, y.low)),
                  _mm256_add_epi32(z.high, _mm256_madd_epi16(x.high, y.high)));
}
HP_INLINE vi nearest(vf v) {
  const Halves x = halves(v);
  return intWhole(_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high));
}
HP_INLINE vi pairOf(vi a, vi b) { return (a & 0xffff) | (b << 16); }
HP_INLINE vi larger(vi a, vi b) {
  const IntHalves x = intHalves(a), y = intHalves(b);
  return intWhole(_mm256_max_epi32(x.low, y.low), _mm256_max_epi32(x.high, y.high));
}
#elif HPFORMER_LANES == 8
HP_INLINE vi addPairs(vi c, vi a, vi b) { return c + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
HP_INLINE vi nearest(vf v) { return (vi)_mm256_cvtps_epi32((__m256)v); }
HP_INLINE vi pairOf(vi a, vi b) { return (vi)_mm256_blend_epi16((__m256i)a, (__m256i)(b << 16), 0xaa); }
HP_INLINE vi larger(vi a, vi b) { return a > b ? a : b; }
#else
HP_INLINE vi addPairs(vi c, vi a, vi b) { return c + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b); }
HP_INLINE vi nearest(vf v) { return (vi)_mm_cvtps_epi32((__m128)v); }
HP_INLINE vi pairOf(vi a, vi b) { return (a & 0xffff) | (b << 16); }
HP_INLINE vi larger(vi a, vi b) { return a > b ? a : b; }
#endif
#endif

// Pins a value in a register.
#if (HPFORMER_LANES == 8 && defined(__AVX2__)) || (HPFORMER_LANES == 16 && defined(__AVX512F__))
HP_INLINE void keep(vf& v) { __asm__("" : "+x"(v)); }
#else
HP_INLINE void keep(vf&) {}
#endif

// Sum of all lanes by halving: one fixed tree per width.
#if HPFORMER_LANES == 8 && defined(__AVX2__)
HP_INLINE float sumLanes(vf v) {
  __m128 h = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps(h, h, 1)));
}
#else
HP_INLINE float sumLanes(vf v) {
  float f[W];
  __builtin_memcpy(f, &v, sizeof v);
  for (int64_t n = W / 2; n > 0; n /= 2)
    for (int64_t i = 0; i < n; ++i) f[i] += f[i + n];
  return f[0];
}
#endif

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
