// Products of 16-bit fixed point, for precision bfloat16 on levels whose only 16-bit arithmetic is the integer one: a
// multiply-add of pairs does twice the work of a float32 multiply-add, weights take half the bytes, and the operands
// keep more digits than bfloat16 has.
//
// A row of A is q scale_r with |q| below 2^15, a column of X is q unit_c, unit_c = max |x| / limit. The limits are such
// that no sum of any column can leave 32 bits, so the sums are exact whatever their order: C = bias + scale_r unit_c
// sum(q q). A is packed in pairs of channels, panels [ceil(rows / panel)][ceil(k / 2)][panel] like the float32 ones; X
// is turned from lanes into pairs [ceil(k / 2)][columns] on the stack (L1) once per product. Where the addition is an
// instruction of its own, the micro-kernel keeps 4 x 2 or 2 x 3 registers of C: its latency is one, so few chains
// suffice, and the product needs a register; where one instruction does both, 8 x 3. A NaN or an infinity in a column
// or row makes its unit or scale NaN or its product 0 times infinity: it reaches just what it reaches in float32.
namespace hpformer::HPFORMER_ISA {
namespace {

constexpr int64_t kFixedDepth = 2048;     // the deepest product
constexpr int64_t kFixedPairs = 16384;    // pairs of the X buffer
constexpr int64_t kFixedColumns = 768;    // columns at a time
constexpr double kFixedSum = 2147483647;  // what a sum may reach
static_assert(kFixedDepth / 2 * W <= kFixedPairs && kFixedColumns % W == 0);

typedef int16_t vh __attribute__((vector_size(2 * HPFORMER_LANES)));
typedef int32_t viu __attribute__((vector_size(4 * HPFORMER_LANES), aligned(4), may_alias));
HP_INLINE vi loadInt(const int32_t* p) { return *reinterpret_cast<const viu*>(p); }
HP_INLINE vi magnitude(vf v) { return asInt(v) & 0x7fffffff; }  // orders like |v|, NaN above infinity
HP_INLINE float largestOf(vi tops) {
  int32_t bits = 0;
  for (int64_t i = 0; i < W; ++i) bits = tops[i] > bits ? tops[i] : bits;
  float top;
  __builtin_memcpy(&top, &bits, sizeof top);
  return top;
}
HP_INLINE vf toFloat(vi v) { return __builtin_convertvector(v, vf); }

// V registers of columns: their pairs to `to`, their units.
template <int V>
HP_INLINE void toFixed(const float* x, int64_t ld, int64_t k, float limit, int32_t* to, int64_t ldto, float* units) {
  vi top[V];
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) top[v] = vi{};
  for (int64_t i = 0; i < k; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) top[v] = larger(top[v], magnitude(load(x + i * ld + v * W)));
  vf by[V];
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    by[v] = set1(limit) / asFloat(top[v]);
    store(units + v * W, asFloat(top[v]) / set1(limit));
  }
  for (int64_t i = 0; i < k; i += 2, x += 2 * ld, to += ldto)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const vi first = nearest(load(x + v * W) * by[v]);
      const vi second = i + 1 < k ? nearest(load(x + ld + v * W) * by[v]) : vi{};
      const vi pairs = pairOf(first, second);
      __builtin_memcpy(to + v * W, &pairs, sizeof pairs);
    }
}

template <int R, int V>
HP_INLINE void microFixed(const Gemm& g, const int32_t* x, int64_t ldx, const float* units, int64_t row, int64_t col) {
  const int64_t depth = (g.k + 1) / 2;
  const int32_t* a = g.fixed.pairs + (row / kPanel) * depth * kPanel + row % kPanel;
  x += col;
  vi acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) acc[r][v] = vi{};
#pragma GCC unroll 2
  for (int64_t i = 0; i < depth; ++i, x += ldx, a += kPanel) {
    vi b[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) b[v] = loadInt(x + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const vi w = vi{} + a[r];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) acc[r][v] = addPairs(acc[r][v], w, b[v]);
    }
  }
  vf y[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const vf scale = set1(g.fixed.scale[row + r]), bias = set1(g.bias ? g.bias[row + r] : 0.0f);
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) y[r][v] = fma(toFloat(acc[r][v]), scale * load(units + col + v * W), bias);
  }
  finish(g, row, col, y);
}

// Rows [row, row + R) of all columns, `ldx` of them in pairs.
template <int R>
static void microFixedRow(const Gemm& g, const int32_t* x, int64_t ldx, const float* units, int64_t row) {
  constexpr int kThree = W == 16 || R == 1 ? R : R / 2;
  int64_t col = 0, left = ldx / W;
  for (; W == 16 ? left > 4 : false; left -= 3, col += 3 * W) microFixed<R, 3>(g, x, ldx, units, row, col);
  for (; left >= 2 && left != 3; left -= 2, col += 2 * W) microFixed<R, 2>(g, x, ldx, units, row, col);
  for (int r = 0; left == 3 && r < R; r += kThree) microFixed<kThree, 3>(g, x, ldx, units, row + r, col);
  if (left == 1) microFixed<R, 1>(g, x, ldx, units, row, col);
  switch (g.activation) {
    case 2: return finishRows<2>(g, row, R);
    case 3: return finishRows<3>(g, row, R);
    case 4: return finishRows<4>(g, row, R);
    default: return;
  }
}

static void gemmFixed(const Gemm& g) {
  alignas(64) int32_t pairs[kFixedPairs];
  float units[kFixedColumns];
  const int64_t fit = kFixedPairs / ((g.k + 1) / 2) / W * W, most = fit < kFixedColumns ? fit : kFixedColumns;
  Gemm part = g;
  for (int64_t col = 0; col < g.cols; col += most) {
    part.cols = g.cols - col < most ? g.cols - col : most;
    part.c = g.c + col;
    if (g.residual) part.residual = g.residual + col;
    const int64_t ld = (part.cols + W - 1) / W * W;
    int64_t at = 0;
    for (; at + 3 * W <= ld; at += 3 * W)
      toFixed<3>(g.x + col + at, g.ldx, g.k, g.fixed.limit, pairs + at, ld, units + at);
    for (; at < ld; at += W) toFixed<1>(g.x + col + at, g.ldx, g.k, g.fixed.limit, pairs + at, ld, units + at);
    int64_t row = 0;
    if constexpr (W == 16)
      for (; row + 8 <= g.rows; row += 8) microFixedRow<8>(part, pairs, ld, units, row);
    for (; row + 4 <= g.rows; row += 4) microFixedRow<4>(part, pairs, ld, units, row);
    for (; row < g.rows; ++row) microFixedRow<1>(part, pairs, ld, units, row);
  }
}

// One column, rows across the register; the same integers, hence the same bits.
template <int P>
static void matvecFixedPanels(const Gemm& g, const int16_t* x, float unit, int64_t row, int64_t col) {
  constexpr int kParts = kPanel / W;
  const int64_t depth = (g.k + 1) / 2;
  const int32_t* a = g.fixed.pairs + (row / kPanel) * depth * kPanel;
  vi acc[P][kParts];
  for (int p = 0; p < P; ++p)
    for (int h = 0; h < kParts; ++h) acc[p][h] = vi{};
  for (int64_t i = 0; i < depth; ++i) {
    int32_t pair;
    __builtin_memcpy(&pair, x + 2 * i, sizeof pair);
    const vi b = vi{} + pair;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int h = 0; h < kParts; ++h)
        acc[p][h] = addPairs(acc[p][h], loadInt(a + (p * depth + i) * kPanel + h * W), b);
  }
  for (int p = 0; p < P; ++p)
    for (int h = 0; h < kParts; ++h) {
      const int64_t first = row + p * kPanel + h * W, n = g.rows - first < W ? g.rows - first : W;
      if (n <= 0) return;
      const vf bias = g.bias ? loadFirst(g.bias + first, n) : vf{};
      vf y = activateBy(g.activation, fma(toFloat(acc[p][h]), load(g.fixed.scale + first) * set1(unit), bias));
      const int64_t at = col * g.ldc + first;
      if (g.residual) y = y + loadFirst(g.residual + at, n);
      storeFirst(g.c + at, y, n);
    }
}

static void matvecFixed(const Gemm& g) {
  int16_t words[kFixedDepth + W];
  const int64_t panels = (g.rows + kPanel - 1) / kPanel;
  for (int64_t col = 0; col < g.cols; ++col) {
    const float* x = g.x + col * g.ldx;
    vi tops{};
    for (int64_t i = 0; i < g.k; i += W) tops = larger(tops, magnitude(loadFirst(x + i, g.k - i < W ? g.k - i : W)));
    const float top = largestOf(tops), unit = top / g.fixed.limit, by = g.fixed.limit / top;
    for (int64_t i = 0; i < g.k; i += W) {
      const vf v = loadFirst(x + i, g.k - i < W ? g.k - i : W);
      const vh q = __builtin_convertvector(nearest(v * set1(by)), vh);
      __builtin_memcpy(words + i, &q, sizeof q);
    }
    if (g.k % 2) words[g.k] = 0;
    int64_t p = 0;
    for (; p + 4 <= panels; p += 4) matvecFixedPanels<4>(g, words, unit, p * kPanel, col);
    for (; p < panels; ++p) matvecFixedPanels<1>(g, words, unit, p * kPanel, col);
  }
}

// Rows [rows][k] of A, `ld` apart, to pairs and scales, both padded with zeros to whole panels. Returns the limit of
// |q| in X. Digits are shared out evenly between A and X.
static float packFixed(const float* a, int64_t ld, int64_t rows, int64_t k, int32_t* pairs, float* scale) {
  const int64_t depth = (k + 1) / 2;
  const auto each = [k](const float* row, auto use) __attribute__((always_inline)) {
    int64_t i = 0;
    for (; i + W <= k; i += W) use(i, load(row + i));
    if (i < k) use(i, loadFirst(row + i, k - i));
  };
  float widest = 1;  // sum over a row as a multiple of its largest value
  for (int64_t r = 0; r < rows; ++r) {
    vi tops{};
    vf sums{};
    each(a + r * ld, [&](int64_t, vf v) {
      tops = larger(tops, magnitude(v));
      sums = sums + asFloat(magnitude(v));
    });
    scale[r] = largestOf(tops);
    const float wide = sumLanes(sums) / scale[r];
    widest = wide > widest ? wide : widest;  // not a NaN
  }
  // Rounding adds at most half a step to each value, 2^-16 covers that of `widest` itself.
  const double sum =
      static_cast<double>(widest < static_cast<float>(k) ? widest : static_cast<float>(k)) * (1 + 0x1p-16);
  const auto most = [](double n) { return static_cast<float>(static_cast<int32_t>(n < 32767 ? n : 32767)); };
  const float limit = most(__builtin_sqrt(kFixedSum / sum));
  for (int64_t r = 0; r < rows; ++r) {
    const vf by = set1(limit / scale[r]);
    int32_t* to = pairs + (r / kPanel) * depth * kPanel + r % kPanel;
    each(a + r * ld, [&](int64_t i, vf v) {
      int32_t two[W / 2];
      const vh q = __builtin_convertvector(nearest(v * by), vh);
      __builtin_memcpy(two, &q, sizeof two);
      for (int64_t j = 0; j < W / 2 && i / 2 + j < depth; ++j) to[(i / 2 + j) * kPanel] = two[j];
    });
    scale[r] /= limit;
  }
  return most(kFixedSum / (sum * static_cast<double>(limit) + 0.5 * static_cast<double>(k)));
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
