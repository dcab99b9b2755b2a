// Between rows [token][channel] and lanes [channel][token]: 8 x 8 blocks in registers where AVX is there.
namespace hpformer::HPFORMER_ISA {
namespace {

#if defined(__AVX2__)
HP_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}
#endif

static void toLanes(const float* const* rows, int64_t count, int64_t width, float* lanes, int64_t ld) {
  const int64_t padded = (count + W - 1) / W * W;
  int64_t t = 0;
#if defined(__AVX2__)
  for (; t < padded; t += 8) {
    const float* r[8];
    for (int i = 0; i < 8; ++i) r[i] = t + i < count ? rows[t + i] : nullptr;
    int64_t c = 0;
    for (; c + 8 <= width; c += 8) {
      __m256 v[8];
      for (int i = 0; i < 8; ++i) v[i] = r[i] ? _mm256_loadu_ps(r[i] + c) : _mm256_setzero_ps();
      transpose8(v);
      for (int i = 0; i < 8; ++i) _mm256_storeu_ps(lanes + (c + i) * ld + t, v[i]);
    }
    for (; c < width; ++c)
      for (int i = 0; i < 8; ++i) lanes[c * ld + t + i] = r[i] ? r[i][c] : 0.0f;
  }
#else
  for (; t < padded; ++t)
    for (int64_t c = 0; c < width; ++c) lanes[c * ld + t] = t < count && rows[t] ? rows[t][c] : 0.0f;
#endif
}

static void fromLanes(const float* lanes, int64_t ld, int64_t count, int64_t width, float* const* rows) {
  int64_t t = 0;
#if defined(__AVX2__)
  for (; t + 8 <= count; t += 8) {
    int64_t c = 0;
    for (; c + 8 <= width; c += 8) {
      __m256 v[8];
      for (int i = 0; i < 8; ++i) v[i] = _mm256_loadu_ps(lanes + (c + i) * ld + t);
      transpose8(v);
      for (int i = 0; i < 8; ++i)
        if (rows[t + i]) _mm256_storeu_ps(rows[t + i] + c, v[i]);
    }
    for (; c < width; ++c)
      for (int i = 0; i < 8; ++i)
        if (rows[t + i]) rows[t + i][c] = lanes[c * ld + t + i];
  }
#endif
  for (; t < count; ++t)
    if (rows[t])
      for (int64_t c = 0; c < width; ++c) rows[t][c] = lanes[c * ld + t];
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
