// GEMM on packed panels, and the same product for one token alone.
//
// Micro-kernel: kRows x kVecs registers of C stay in registers while k runs; per k it loads kVecs registers of X and
// broadcasts kRows weights. A panel holds kPanel rows so that `matvec` can load a full register of rows at one k; the
// micro-kernel walks it in slices of kRows. Panels are the outer loop and column chunks the inner one: a panel is read
// from L2 once per tile and stays in L1, while X (the tile) stays in L1 all along.
namespace hpformer::HPFORMER_ISA {
namespace {

constexpr int kRows = kTuning.rows, kVecs = kTuning.registers;
constexpr int64_t kPanel = kTuning.panel;

// What the micro-kernel does itself with its sums `acc`: no activation or relu (a lower end, without a branch), and the
// residual.
template <int R, int V>
HP_INLINE void finish(const Gemm& g, int64_t row, int64_t col, const vf (&acc)[R][V]) {
  const vf least = set1(g.activation == 1 ? 0.0f : -__builtin_inff());
  const int64_t ld = g.ldc, at = row * ld + col;
  float* c = g.c + at;
  const float* residual = g.residual && g.activation <= 1 ? g.residual + at : nullptr;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const vf y = max(least, acc[r][v]);
      store(c + r * ld + v * W, residual ? y + load(residual + r * ld + v * W) : y);
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
  finish(g, row, col, acc);
}

// Any other activation, then residual, over rows that were just written and still sit in L1. Apart from the
// micro-kernel, so that its code exists once and not once per activation.
template <int A>
static void finishRows(const Gemm& g, int64_t row, int64_t rows) {
  const int64_t cols = g.cols, ld = g.ldc;  // copies: a store might change `g` for all that the compiler knows
  const float* residual = g.residual;
  for (int64_t r = row; r < row + rows; ++r)
    for (int64_t col = 0; col < cols; col += W) {
      float* c = g.c + r * ld + col;
      const vf y = activate<A>(load(c));
      store(c, residual ? y + load(residual + r * ld + col) : y);
    }
}

template <int R>
static void microRow(const Gemm& g, int64_t row) {
  const int64_t depth = g.packed ? g.packed : g.k;
  const float* a = g.a + (row / kPanel) * depth * kPanel + row % kPanel;
  // Two and two rather than three and one: a single register has too few chains to hide the latency of multiply-adds.
  int64_t col = 0, left = (g.cols + W - 1) / W;
  for (; left >= kVecs && left != 4; left -= kVecs, col += kVecs * W) micro<R, kVecs>(a, g, row, col);
  for (; left >= 2; left -= 2, col += 2 * W) micro<R, 2>(a, g, row, col);
  if (left > 0) micro<R, 1>(a, g, row, col);
  switch (g.activation) {
    case 2: return finishRows<2>(g, row, R);
    case 3: return finishRows<3>(g, row, R);
    case 4: return finishRows<4>(g, row, R);
    default: return;
  }
}

// One register of columns: eight rows, else too few chains hide the latency of the multiply-adds.
static void microNarrow(const Gemm& g, int64_t row) {
  const int64_t depth = g.packed ? g.packed : g.k;
  micro<8, 1>(g.a + (row / kPanel) * depth * kPanel + row % kPanel, g, row, 0);
  switch (g.activation) {
    case 2: return finishRows<2>(g, row, 8);
    case 3: return finishRows<3>(g, row, 8);
    case 4: return finishRows<4>(g, row, 8);
    default: return;
  }
}

static void gemm(const Gemm& g) {
  int64_t row = 0;
  if (g.cols <= W)
    for (; row + 8 <= g.rows; row += 8) microNarrow(g, row);
  for (; row + kRows <= g.rows; row += kRows) microRow<kRows>(g, row);
  if constexpr (kRows == 8)
    for (; row + 4 <= g.rows; row += 4) microRow<4>(g, row);
  switch (g.rows - row) {
    case 3: return microRow<3>(g, row);
    case 2: return microRow<2>(g, row);
    case 1: return microRow<1>(g, row);
    default: return;
  }
}

// Rows across the register: kPanel rows at once, several panels in flight to hide the latency of the chains over k.
typedef float vp __attribute__((vector_size(4 * kPanel)));
typedef float vpu __attribute__((vector_size(4 * kPanel), aligned(4), may_alias));

HP_INLINE vp fmaPanel(float w, vp x, vp c) {
#if defined(__FMA__) && HPFORMER_LANES == 8
  return (vp)_mm256_fmadd_ps(_mm256_set1_ps(w), (__m256)x, (__m256)c);
#elif HPFORMER_LANES == 16 && defined(__AVX2__)
  return fma(set1(w), x, c);
#elif defined(__aarch64__) || defined(__FMA__)
  vp r;
  for (int i = 0; i < kPanel; ++i) r[i] = __builtin_fmaf(w, x[i], c[i]);
  return r;
#else
  return x * w + c;
#endif
}

HP_INLINE vf activateBy(int activation, vf v) {
  switch (activation) {
    case 1: return activate<1>(v);
    case 2: return activate<2>(v);
    case 3: return activate<3>(v);
    case 4: return activate<4>(v);
    default: return v;
  }
}

template <int P, int C>
static void matvecPanels(const Gemm& g, int64_t row, int64_t col) {
  vp acc[P][C];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    vp start{};
    if (g.bias)
      for (int64_t i = 0; i < kPanel && row + p * kPanel + i < g.rows; ++i) start[i] = g.bias[row + p * kPanel + i];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) acc[p][c] = start;
  }
  const int64_t depth = g.packed ? g.packed : g.k;
  const float* a = g.a + (row / kPanel) * depth * kPanel;
  const float* x = g.x + col * g.ldx;
  for (int64_t k = 0; k < g.k; ++k) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const vp w = *reinterpret_cast<const vpu*>(a + (p * depth + k) * kPanel);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[p][c] = fmaPanel(x[c * g.ldx + k], w, acc[p][c]);
    }
  }
  for (int c = 0; c < C; ++c)
    for (int p = 0; p < P; ++p) {
      const int64_t first = row + p * kPanel, n = g.rows - first < kPanel ? g.rows - first : kPanel;
      float y[kPanel];
      __builtin_memcpy(y, &acc[p][c], sizeof y);
      for (int64_t i = 0; i < kPanel; i += W) store(y + i, activateBy(g.activation, load(y + i)));
      const int64_t at = (col + c) * g.ldc + first;
      for (int64_t i = 0; i < n; ++i) g.c[at + i] = g.residual ? y[i] + g.residual[at + i] : y[i];
    }
}

template <int C>
static void matvecColumns(const Gemm& g, int64_t col) {
  constexpr int64_t kMany = 8 / C, kFew = C == 1 ? 4 : 1;  // eight chains
  const int64_t panels = (g.rows + kPanel - 1) / kPanel;
  int64_t p = 0;
  for (; p + kMany <= panels; p += kMany) matvecPanels<kMany, C>(g, p * kPanel, col);
  for (; p + kFew <= panels; p += kFew) matvecPanels<kFew, C>(g, p * kPanel, col);
  for (; p < panels; ++p) matvecPanels<1, C>(g, p * kPanel, col);
}

static void matvec(const Gemm& g) {
  int64_t col = 0;
  for (; col + 4 <= g.cols; col += 4) matvecColumns<4>(g, col);
  for (; col < g.cols; ++col) matvecColumns<1>(g, col);
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
