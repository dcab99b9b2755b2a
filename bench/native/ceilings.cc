#include <algorithm>
#include <chrono>
#include <cstring>

#include "binding/cpu/threads.h"
#include "native.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace hpformer::native {
namespace {

using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Each loop does `kChains` independent multiply-adds per turn and returns their sum, so that nothing is optimised away.
constexpr int kTurns = 20000;

#if defined(__x86_64__)
template <int N>
__attribute__((target("sse2"))) float sse(float seed) {
  __m128 acc[N], m = _mm_set1_ps(0.9999f), a = _mm_set1_ps(seed);
  for (auto& v : acc) v = a;
  for (int i = 0; i < kTurns; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) acc[n] = _mm_add_ps(_mm_mul_ps(acc[n], m), a);
  }
  float out[4], sum = 0;
  for (auto& v : acc) _mm_storeu_ps(out, v), sum += out[0];
  return sum;
}
template <int N>
__attribute__((target("avx2,fma"))) float avx2(float seed) {
  __m256 acc[N], m = _mm256_set1_ps(0.9999f), a = _mm256_set1_ps(seed);
  for (auto& v : acc) v = a;
  for (int i = 0; i < kTurns; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) acc[n] = _mm256_fmadd_ps(acc[n], m, a);
  }
  float out[8], sum = 0;
  for (auto& v : acc) _mm256_storeu_ps(out, v), sum += out[0];
  return sum;
}
template <int N>
__attribute__((target("avx512f"))) float avx512(float seed) {
  __m512 acc[N], m = _mm512_set1_ps(0.9999f), a = _mm512_set1_ps(seed);
  for (auto& v : acc) v = a;
  for (int i = 0; i < kTurns; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) acc[n] = _mm512_fmadd_ps(acc[n], m, a);
  }
  float out[16], sum = 0;
  for (auto& v : acc) _mm512_storeu_ps(out, v), sum += out[0];
  return sum;
}

// Eight chains of multiply-adds and six of additions fill the fourteen registers that two constants leave of sixteen.
#define HPFORMER_VECTOR_LOOPS(name, features, vector, set1, storeu, multiply, addition) \
  template <int kMultiplies, int kAdditions>                                            \
  __attribute__((target(features))) float name(float seed) {                            \
    vector x[kMultiplies + 1], y[kAdditions + 1], m = set1(0.9999f), a = set1(seed);    \
    for (auto& v : x) v = a;                                                            \
    for (auto& v : y) v = a;                                                            \
    for (int i = 0; i < kTurns; ++i) {                                                  \
      _Pragma("GCC unroll 16") for (int n = 0; n < kMultiplies; ++n) x[n] = multiply;   \
      _Pragma("GCC unroll 16") for (int n = 0; n < kAdditions; ++n) y[n] = addition;    \
    }                                                                                   \
    float out[16], sum = 0;                                                             \
    for (auto& v : x) storeu(out, v), sum += out[0];                                    \
    for (auto& v : y) storeu(out, v), sum += out[0];                                    \
    return sum;                                                                         \
  }
HPFORMER_VECTOR_LOOPS(sseLoop, "sse2", __m128, _mm_set1_ps, _mm_storeu_ps, _mm_mul_ps(x[n], m), _mm_add_ps(y[n], a))
HPFORMER_VECTOR_LOOPS(avx2Loop, "avx2,fma", __m256, _mm256_set1_ps, _mm256_storeu_ps, _mm256_fmadd_ps(x[n], m, a),
                      _mm256_add_ps(y[n], a))
HPFORMER_VECTOR_LOOPS(avx512Loop, "avx512f", __m512, _mm512_set1_ps, _mm512_storeu_ps, _mm512_fmadd_ps(x[n], m, a),
                      _mm512_add_ps(y[n], a))

struct alignas(64) TileConfig {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t columns[16] = {};
  uint8_t rows[16] = {};
};

__attribute__((target("amx-tile,amx-bf16"))) void amxTurns(int turns) {
  alignas(64) static thread_local uint8_t zero[1024] = {};
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.columns[i] = 64, config.rows[i] = 16;
  asm volatile("" ::: "memory");  // the intrinsic does not say that it reads the configuration
  _tile_loadconfig(&config);
  _tile_loadd(4, zero, 64);
  _tile_loadd(5, zero, 64);
  _tile_loadd(6, zero, 64);
  _tile_loadd(7, zero, 64);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int i = 0; i < turns; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

// cpuid leaf 7 (AMX-TILE bit 24, AMX-BF16 bit 22 of edx), then the kernel's permission for tile state (feature 18).
bool amxAllowed() {
  uint32_t a = 7, b, c = 0, d;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if (!(d >> 24 & 1) || !(d >> 22 & 1)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#elif defined(__aarch64__)
template <int N>
float neon(float seed) {
  float32x4_t acc[N], m = vdupq_n_f32(0.9999f), a = vdupq_n_f32(seed);
  for (auto& v : acc) v = a;
  for (int i = 0; i < kTurns; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) acc[n] = vfmaq_f32(a, acc[n], m);
  }
  float sum = 0;
  for (auto& v : acc) sum += vgetq_lane_f32(v, 0);
  return sum;
}
template <int kMultiplies, int kAdditions>
float neonLoop(float seed) {
  float32x4_t x[kMultiplies + 1], y[kAdditions + 1], m = vdupq_n_f32(0.9999f), a = vdupq_n_f32(seed);
  for (auto& v : x) v = a;
  for (auto& v : y) v = a;
  for (int i = 0; i < kTurns; ++i) {
    for (int n = 0; n < kMultiplies; ++n) x[n] = vfmaq_f32(a, x[n], m);
    for (int n = 0; n < kAdditions; ++n) y[n] = vaddq_f32(y[n], a);
  }
  float sum = 0;
  for (auto& v : x) sum += vgetq_lane_f32(v, 0);
  for (auto& v : y) sum += vgetq_lane_f32(v, 0);
  return sum;
}
#endif

struct Loop {
  float (*run)(float) = nullptr;
  double flops = 0;  // of one call
};

Loop loopOf(const std::string& isa) {
#if defined(__x86_64__)
  if (isa.rfind("avx512", 0) == 0 || isa == "amx") return {avx512<12>, 2.0 * 16 * 12 * kTurns};
  // The test levels `wide` and `wide_tiles` are AVX2 instructions.
  if (isa == "avx2" || isa.rfind("wide", 0) == 0) return {avx2<12>, 2.0 * 8 * 12 * kTurns};
  return {sse<12>, 2.0 * 4 * 12 * kTurns};
#elif defined(__aarch64__)
  static_cast<void>(isa);
  return {neon<12>, 2.0 * 4 * 12 * kTurns};
#else
  static_cast<void>(isa);
  return {};
#endif
}

using VectorRun = float (*)(float);

VectorRun vectorLoopOf(const std::string& isa, VectorLoop kind) {
#define HPFORMER_PICK(loop) \
  (kind == VectorLoop::multiply ? loop<12, 0> : kind == VectorLoop::add ? loop<0, 12> : loop<8, 6>)
#if defined(__x86_64__)
  if (isa.rfind("avx512", 0) == 0 || isa == "amx") return HPFORMER_PICK(avx512Loop);
  if (isa == "avx2" || isa.rfind("wide", 0) == 0) return HPFORMER_PICK(avx2Loop);
  return HPFORMER_PICK(sseLoop);
#elif defined(__aarch64__)
  static_cast<void>(isa);
  return HPFORMER_PICK(neonLoop);
#else
  static_cast<void>(isa);
  static_cast<void>(kind);
  return nullptr;
#endif
}

volatile float sink;

}  // namespace

double fmaPeak(const std::string& isa, int threads, double ms) {
  const Loop loop = loopOf(isa);
  if (!loop.run) return 0;
  double best = 0;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(ms);
  do {
    const auto start = Clock::now();
    parallelFor(threads, threads, [&](int64_t i) { sink = loop.run(0.5f + static_cast<float>(i)); });
    best = std::max(best, threads * loop.flops / secondsSince(start) / 1e9);
  } while (Clock::now() < end);
  return best;
}

double vectorRate(const std::string& isa, VectorLoop kind, double ms) {
  const VectorRun run = vectorLoopOf(isa, kind);
  if (!run) return 0;
  double best = 0;
  const double instructions = (kind == VectorLoop::both ? 14.0 : 12.0) * kTurns;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(ms);
  do {
    const auto start = Clock::now();
    sink = run(0.5f);
    best = std::max(best, instructions / secondsSince(start) / 1e9);
  } while (Clock::now() < end);
  return best;
}

double copyBandwidth(int64_t bytes, int threads, double ms) {
  std::vector<std::vector<char>> from(static_cast<std::size_t>(threads),
                                      std::vector<char>(static_cast<std::size_t>(bytes), 1));
  auto to = from;
  double best = 0;
  const int repeat = static_cast<int>(std::max<int64_t>(1, (1 << 24) / bytes));
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(ms);
  do {
    const auto start = Clock::now();
    parallelFor(threads, threads, [&](int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      for (int r = 0; r < repeat; ++r) {
        std::memcpy(to[at].data(), from[at].data(), static_cast<std::size_t>(bytes));
        asm volatile("" ::"r"(to[at].data()) : "memory");
      }
    });
    best = std::max(best, 2.0 * static_cast<double>(bytes) * repeat * threads / secondsSince(start) / 1e9);
  } while (Clock::now() < end);
  return best;
}

double amxPeak(double ms) {
#if defined(__x86_64__)
  if (!amxAllowed()) return 0;
  constexpr int kAmxTurns = 2000;
  double best = 0;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(ms);
  do {
    const auto start = Clock::now();
    amxTurns(kAmxTurns);
    best = std::max(best, 4.0 * 2 * 16 * 16 * 32 * kAmxTurns / secondsSince(start) / 1e9);
  } while (Clock::now() < end);
  return best;
#else
  static_cast<void>(ms);
  return 0;
#endif
}

}  // namespace hpformer::native
