// Matrix tiles: eight registers of 16 rows x 64 bytes. A: 16 rows x 32 bfloat16 [row][k]. B: 16 rows x 16 pairs
// [k / 2][column][k % 2]. C: 16 x 16 float [row][column]; C += A B. Two forms with one meaning: AMX where the object is
// compiled for it, and plain C, so that everything around the instructions is tested on machines without them.
#pragma once
#include "simd.h"

namespace hpformer::HPFORMER_ISA {
namespace {

static_assert(W == 16, "a register of lanes is one row of a tile");
constexpr int64_t kHalves = 512;  // bfloat16 values of a tile

#if defined(__AMX_BF16__)

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

HP_INLINE void tilesConfigure() {
  const TileConfig config;
  __asm__ volatile("" : : "r"(&config) : "memory");  // gcc 12 does not know that the next line reads the 64 bytes
  _tile_loadconfig(&config);
}
HP_INLINE void tilesRelease() { _tile_release(); }

// Tile numbers are part of the instruction, hence macros.
#define HP_TILE_ZERO(t) _tile_zero(t)
#define HP_TILE_LOAD(t, p) _tile_loadd(t, p, 64)
#define HP_TILE_STORE(t, p, stride) _tile_stored(t, p, stride)
#define HP_TILE_MULTIPLY(c, a, b) _tile_dpbf16ps(c, a, b)
// gcc 12 does not know that tile loads read memory: what they are to see must be stored before this.
#define HP_TILE_FENCE() __asm__ volatile("" : : : "memory")

// Two registers of lanes to one row of pairs: lane i holds (a[i], b[i]).
HP_INLINE void storePairs(uint16_t* to, vf a, vf b) {
  static const uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_loadu_si512(kOrder), both));
}

// Lanes [from, until) as bfloat16 to `to`.
HP_INLINE void storeHalves(uint16_t* to, vf v, int64_t from, int64_t until) {
  const __mmask16 mask = static_cast<__mmask16>(((1u << until) - 1) & ~((1u << from) - 1));
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

#else

struct Tile {
  char bytes[16][64];
};
static thread_local Tile tiles[8];

HP_INLINE void tilesConfigure() { __builtin_memset(tiles, 0xff, sizeof tiles); }  // NaN: a missing zero is seen
HP_INLINE void tilesRelease() { __builtin_memset(tiles, 0xff, sizeof tiles); }

// Even and odd products are summed apart and added to C at the end, as the instruction does it. Two halves of 8 lanes:
// vectors of 16 would pass through memory here.
static void tileMultiply(int c, int a, int b) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  for (int half = 0; half < 2; ++half) {
    __m256 even[16], odd[16];
    for (int k = 0; k < 16; ++k) {
      const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tiles[b].bytes[k] + 32 * half));
      even[k] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      odd[k] = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
    }
    for (int m = 0; m < 16; ++m) {
      __m256 x = _mm256_setzero_ps(), y = x;
      for (int k = 0; k < 16; ++k) {
        int32_t pair;
        __builtin_memcpy(&pair, tiles[a].bytes[m] + 4 * k, 4);
        const __m256i both = _mm256_set1_epi32(pair);
        x = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)), even[k], x);
        y = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(both, high)), odd[k], y);
      }
      float* sum = reinterpret_cast<float*>(tiles[c].bytes[m] + 32 * half);
      _mm256_storeu_ps(sum, _mm256_add_ps(_mm256_loadu_ps(sum), _mm256_add_ps(x, y)));
    }
  }
}
HP_INLINE void tileStore(int t, float* p, int64_t stride) {
  for (int m = 0; m < 16; ++m) __builtin_memcpy(reinterpret_cast<char*>(p) + m * stride, tiles[t].bytes[m], 64);
}
#define HP_TILE_ZERO(t) __builtin_memset(&tiles[t], 0, sizeof tiles[t])
#define HP_TILE_LOAD(t, p) __builtin_memcpy(&tiles[t], p, sizeof tiles[t])
#define HP_TILE_STORE(t, p, stride) tileStore(t, p, stride)
#define HP_TILE_MULTIPLY(c, a, b) tileMultiply(c, a, b)
#define HP_TILE_FENCE()

// Nearest bfloat16, ties to even, in the high half of the lane; a NaN becomes the plain one.
HP_INLINE vi rounded(vf v) {
  const vi bits = asInt(v);
  const vi up = bits + 0x7fff + ((bits >> 16) & 1);
  return (v == v ? up : vi{} + 0x7fc00000) & static_cast<int32_t>(0xffff0000u);
}
HP_INLINE void storePairs(uint16_t* to, vf a, vf b) {
  const vi pairs = rounded(b) | ((rounded(a) >> 16) & 0xffff);
  __builtin_memcpy(to, &pairs, sizeof pairs);
}
HP_INLINE void storeHalves(uint16_t* to, vf v, int64_t from, int64_t until) {
  const vi r = rounded(v);
  for (int64_t i = from; i < until; ++i) to[i] = static_cast<uint16_t>(static_cast<uint32_t>(r[i]) >> 16);
}

#endif

// The upper 8 bits of the significand: a bfloat16. What is left is exact, so two steps take a float32 apart into three.
// A NaN may come out as infinity, an infinity leaves NaN: a part of either is NaN.
HP_INLINE vf upperHalf(vf v) { return asFloat(asInt(v) & static_cast<int32_t>(0xffff0000u)); }

// Rows of pairs of the three parts of a and b, `part` apart.
HP_INLINE void storeParts(uint16_t* to, int64_t part, vf a, vf b) {
  for (int p = 0; p < 3; ++p, to += part) {
    const vf first = upperHalf(a), second = upperHalf(b);
    const vi pairs = asInt(second) | ((asInt(first) >> 16) & 0xffff);
    __builtin_memcpy(to, &pairs, sizeof pairs);
    a = a - first;
    b = b - second;
  }
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
