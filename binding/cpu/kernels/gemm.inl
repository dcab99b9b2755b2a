// GEMM on packed panels, and the same product for one token alone.
//
// Micro-kernel: kRows x kVecs registers of C stay in registers while k runs; per k it loads kVecs registers of X and
// broadcasts kRows weights. A panel holds kPanel rows so that `matvec` can load a full register of rows at one k; the
// micro-kernel walks it in slices of kRows. Panels are the outer loop and column chunks the inner one: a panel is read
// from L2 once per tile and stays in L1, while X (the tile) stays in L1 all along.
namespace hpformer::HPFORMER_ISA {
namespace {

#if HPFORMER_LANES == 16 || defined(__aarch64__)
constexpr int kRows = 8, kVecs = 3;  // 24 accumulators of 32 registers
#elif defined(__FMA__)
constexpr int kRows = 4, kVecs = 3;  // 12 accumulators of 16 registers; 7 loads for 12 multiply-adds
#else
constexpr int kRows = 4, kVecs = 2;  // no fused multiply-add: room for the products
#endif
constexpr int64_t kPanel = HPFORMER_LANES == 16 ? 16 : 8;
// Tokens of a tile: x, y and a panel together fit L1 at hidden 128 (24: +5..10 % over 48 there on a 32 KB L1, 2026-11).
constexpr int64_t kTile = HPFORMER_LANES == 16 ? 48 : 24;
// Sequences side by side when one step is read: weights stream once for all of them.
constexpr int64_t kGroup = 48;

template <int R, int V, int A>
HP_INLINE void microEpilogue(vf (&acc)[R][V], const Gemm& g, int64_t row, int64_t col) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* c = g.c + (row + r) * g.ldc + col;
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      vf y = activate<A>(acc[r][v]);
      if (g.residual) y = y + load(g.residual + (row + r) * g.ldc + col + v * W);
      store(c + v * W, y);
    }
  }
}

template <int R, int V>
HP_INLINE void micro(const float* a, const Gemm& g, int64_t row, int64_t col) {
  vf acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) acc[r][v] = set1(g.bias ? g.bias[row + r] : 0.0f);
  const float* x = g.x + col;
  for (int64_t k = 0; k < g.k; ++k, x += g.ldx, a += kPanel) {
    vf b[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      b[v] = load(x + v * W);
      keep(b[v]);  // else the compiler loads it again for every row
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const vf w = set1(a[r]);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) acc[r][v] = fma(w, b[v], acc[r][v]);
    }
  }
  switch (g.activation) {
    case 1: return microEpilogue<R, V, 1>(acc, g, row, col);
    case 2: return microEpilogue<R, V, 2>(acc, g, row, col);
    case 3: return microEpilogue<R, V, 3>(acc, g, row, col);
    case 4: return microEpilogue<R, V, 4>(acc, g, row, col);
    default: return microEpilogue<R, V, 0>(acc, g, row, col);
  }
}

template <int R>
static void microRow(const float* a, const Gemm& g, int64_t row) {
  int64_t col = 0;
  for (; col + kVecs * W <= g.cols; col += kVecs * W) micro<R, kVecs>(a, g, row, col);
  const int64_t rest = (g.cols - col + W - 1) / W;
  if constexpr (kVecs == 3) {
    if (rest == 3) micro<R, 3>(a, g, row, col);
    else if (rest == 2) micro<R, 2>(a, g, row, col);
    else if (rest == 1) micro<R, 1>(a, g, row, col);
  } else {
    if (rest == 2) micro<R, 2>(a, g, row, col);
    else if (rest == 1) micro<R, 1>(a, g, row, col);
  }
}

static void gemm(const Gemm& g) {
  const int64_t depth = g.packed ? g.packed : g.k;
  if (kRows < 8 && g.cols <= W && g.rows >= 8) {  // one register of columns: more rows hide the latency of the chains
    int64_t row = 0;
    for (; row + 8 <= g.rows; row += 8) micro<8, 1>(g.a + (row / kPanel) * depth * kPanel, g, row, 0);
    Gemm rest = g;
    if (row == g.rows) return;
    rest.a = g.a + (row / kPanel) * depth * kPanel;
    rest.c = g.c + row * g.ldc;
    if (g.residual) rest.residual = g.residual + row * g.ldc;
    if (g.bias) rest.bias = g.bias + row;
    rest.rows = g.rows - row;
    return gemm(rest);
  }
  for (int64_t row = 0; row < g.rows; row += kRows) {
    const float* a = g.a + (row / kPanel) * depth * kPanel + row % kPanel;
    switch (g.rows - row) {
      case 1: microRow<1>(a, g, row); break;
      case 2: microRow<2>(a, g, row); break;
      case 3: microRow<3>(a, g, row); break;
      default:
        if constexpr (kRows == 8) {
          switch (g.rows - row) {
            case 4: microRow<4>(a, g, row); return;
            case 5: microRow<5>(a, g, row); return;
            case 6: microRow<6>(a, g, row); return;
            case 7: microRow<7>(a, g, row); return;
            default: break;
          }
        }
        microRow<kRows>(a, g, row);
    }
  }
}

// Rows across the register: kPanel rows at once, several panels in flight to hide the latency of the chains over k.
typedef float vp __attribute__((vector_size(4 * kPanel)));
typedef float vpu __attribute__((vector_size(4 * kPanel), aligned(4), may_alias));

HP_INLINE vp fmaPanel(float w, vp x, vp c) {
#if defined(__FMA__) && HPFORMER_LANES == 8
  return (vp)_mm256_fmadd_ps(_mm256_set1_ps(w), (__m256)x, (__m256)c);
#elif defined(__AVX512F__) && HPFORMER_LANES == 16
  return (vp)_mm512_fmadd_ps(_mm512_set1_ps(w), (__m512)x, (__m512)c);
#elif defined(__aarch64__) || defined(__FMA__)
  vp r;
  for (int i = 0; i < kPanel; ++i) r[i] = __builtin_fmaf(w, x[i], c[i]);
  return r;
#else
  return x * w + c;
#endif
}

template <int P>
static void matvecPanels(const Gemm& g, int64_t row) {
  vp acc[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    acc[p] = vp{};
    if (g.bias)
      for (int64_t i = 0; i < kPanel && row + p * kPanel + i < g.rows; ++i) acc[p][i] = g.bias[row + p * kPanel + i];
  }
  const int64_t depth = g.packed ? g.packed : g.k;
  const float* a = g.a + (row / kPanel) * depth * kPanel;
  for (int64_t k = 0; k < g.k; ++k) {
    const float x = g.x[k];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
      acc[p] = fmaPanel(x, *reinterpret_cast<const vpu*>(a + (p * depth + k) * kPanel), acc[p]);
  }
  for (int p = 0; p < P; ++p) {
    const int64_t n = g.rows - row - p * kPanel < kPanel ? g.rows - row - p * kPanel : kPanel;
    float y[kPanel];
    __builtin_memcpy(y, &acc[p], sizeof y);
    for (int64_t i = 0; i < kPanel; i += W) {
      vf v = load(y + i);
      switch (g.activation) {
        case 1: v = activate<1>(v); break;
        case 2: v = activate<2>(v); break;
        case 3: v = activate<3>(v); break;
        case 4: v = activate<4>(v); break;
        default: break;
      }
      store(y + i, v);
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = row + p * kPanel + i;
      g.c[r] = g.residual ? y[i] + g.residual[r] : y[i];
    }
  }
}

static void matvec(const Gemm& g) {
  int64_t row = 0;
  for (; row + 8 * kPanel <= g.rows + kPanel - 1; row += 8 * kPanel) matvecPanels<8>(g, row);
  for (; row + 4 * kPanel <= g.rows + kPanel - 1; row += 4 * kPanel) matvecPanels<4>(g, row);
  for (; row < g.rows; row += kPanel) matvecPanels<1>(g, row);
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
