// K-key attention of an HPformer layer (reference section 2): queries are the token's own channels, keys and values the
// compressed keys. Softmax over the segments runs down the lanes: no sum across a register.
namespace hpformer::HPFORMER_ISA {
namespace {

// Softmax over `count` registers spaced ld apart, in place.
HP_INLINE void softmaxLanes(float* p, int64_t count, int64_t ld, float scale) {
  vf top = load(p);
  for (int64_t s = 1; s < count; ++s) top = max(top, load(p + s * ld));
  const vf by = set1(scale * kLog2E);
  vf sum{};
  for (int64_t s = 0; s < count; ++s) {
    const vf e = powerOfTwo((load(p + s * ld) - top) * by);
    sum = sum + e;
    store(p + s * ld, e);
  }
  const vf inverse = set1(1.0f) / sum;
  for (int64_t s = 0; s < count; ++s) store(p + s * ld, load(p + s * ld) * inverse);
}

static void keyScores(const KeyScores& a) {
  const int64_t panels = (a.segments + kPanel - 1) / kPanel;
  for (int64_t g = 0; g < a.heads; ++g) {
    Gemm scores;
    scores.a = a.keys + g * panels * a.width * kPanel;
    scores.rows = a.segments;
    scores.k = a.width;
    scores.x = a.x + g * a.width * a.ld;
    scores.ldx = scores.ldc = a.ld;
    scores.c = a.p + g * a.segments * a.ld;
    scores.cols = a.cols;
    gemm(scores);
    for (int64_t col = 0; col < a.cols; col += W) softmaxLanes(scores.c + col, a.segments, a.ld, a.scale);
  }
}

static void keyAttentionLanes(const KeyAttentionLanes& given) {
  const KeyAttentionLanes a = given;  // a copy: a store might change `given` for all that the compiler knows
  const int64_t hidden = a.heads * a.width;
  for (int64_t col = 0; col < a.cols; col += W) {
    vi counts;
    __builtin_memcpy(&counts, a.segments + col, sizeof counts);
    for (int64_t g = 0; g < a.heads; ++g) {
      const float* x = a.x + g * a.width * a.ld + col;
      const float* keys = a.keys + col * a.segmentsMax * hidden + g * a.width * W;
      float* p = a.p + g * a.segmentsMax * a.ld + col;
      // Four segments at a time share the loads of x.
      vf top = set1(-__builtin_inff());
      for (int64_t s = 0; s < a.segmentsMax; s += 4) {
        const int64_t n = a.segmentsMax - s < 4 ? a.segmentsMax - s : 4;
        const float* k0 = keys + s * hidden * W;
        const float* k1 = keys + (s + (n > 1 ? 1 : 0)) * hidden * W;
        const float* k2 = keys + (s + (n > 2 ? 2 : 0)) * hidden * W;
        const float* k3 = keys + (s + (n > 3 ? 3 : 0)) * hidden * W;
        vf d[4] = {vf{}, vf{}, vf{}, vf{}};
        for (int64_t i = 0; i < a.width; ++i) {
          const vf v = load(x + i * a.ld);
          d[0] = fma(v, load(k0 + i * W), d[0]);
          d[1] = fma(v, load(k1 + i * W), d[1]);
          d[2] = fma(v, load(k2 + i * W), d[2]);
          d[3] = fma(v, load(k3 + i * W), d[3]);
        }
        for (int64_t j = 0; j < n; ++j) {
          const vf live = counts > static_cast<int32_t>(s + j) ? d[j] : set1(-__builtin_inff());
          store(p + (s + j) * a.ld, live);
          top = max(top, live);
        }
      }
      // An idle lane has no segment; any finite maximum keeps it free of NaN.
      top = counts > 0 ? top : vf{};
      const vf by = set1(a.scale * kLog2E);
      vf sum{};
      for (int64_t s = 0; s < a.segmentsMax; ++s) {
        const vf score = load(p + s * a.ld);
        const vf e = counts > static_cast<int32_t>(s) ? powerOfTwo((score - top) * by) : vf{};
        sum = sum + e;
        store(p + s * a.ld, e);
      }
      const vf inverse = set1(1.0f) / (counts > 0 ? sum : set1(1.0f));
      for (int64_t s = 0; s < a.segmentsMax; ++s) store(p + s * a.ld, load(p + s * a.ld) * inverse);
      float* out = a.out + g * a.width * a.ld + col;
      for (int64_t s = 0; s < a.segmentsMax; s += 4) {  // four probabilities stay in registers
        const int64_t n = a.segmentsMax - s < 4 ? a.segmentsMax - s : 4;
        vf w[4];
        const float* k[4];
        for (int64_t j = 0; j < 4; ++j) {
          w[j] = j < n ? load(p + (s + j) * a.ld) : vf{};
          k[j] = keys + (s + (j < n ? j : 0)) * hidden * W;
        }
        for (int64_t i = 0; i < a.width; ++i) {
          vf sum = s == 0 ? vf{} : load(out + i * a.ld);
          sum = fma(w[0], load(k[0] + i * W), sum);
          if (n > 1) sum = fma(w[1], load(k[1] + i * W), sum);
          if (n > 2) sum = fma(w[2], load(k[2] + i * W), sum);
          if (n > 3) sum = fma(w[3], load(k[3] + i * W), sum);
          store(out + i * a.ld, sum);
        }
      }
    }
  }
}

// Head links in lanes: sigmoid, or softmax over the labels.
static void link(int kind, float* x, int64_t labels, int64_t ld, int64_t cols) {
  for (int64_t col = 0; col < cols; col += W) {
    if (kind == 1)
      for (int64_t c = 0; c < labels; ++c) store(x + c * ld + col, sigmoid(load(x + c * ld + col)));
    if (kind == 2) softmaxLanes(x + col, labels, ld, 1.0f);
  }
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
