// The intra-segment scan (reference section 1, step 5) as one pass over a segment: scores of a block of rows, then the
// weighted sums while the block is still in L1. The running maximum makes it exact for any length (online softmax).
namespace hpformer::HPFORMER_ISA {
namespace {

// Unscaled scores of R neighbouring rows: one chain of registers a row, the table's part running on in the same chain.
template <int R>
HP_INLINE void scoreRows(const ScanBlock& b, int64_t t) {
  vf s[R];
  for (int r = 0; r < R; ++r) s[r] = vf{};
  const auto chain = [&s](const float* query, const float* x, int64_t ld, int64_t width) {
    int64_t i = 0;
    for (; i + W <= width; i += W) {
      const vf q = load(query + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) s[r] = fma(q, load(x + r * ld + i), s[r]);
    }
    if (i == width) return;
    const vf q = loadFirst(query + i, width - i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) s[r] = fma(q, loadFirst(x + r * ld + i, width - i), s[r]);
  };
  chain(b.query, b.x + t * b.ldx, b.ldx, b.width);
  if (b.table) chain(b.tableQuery, b.table + t * b.ldtable, b.ldtable, b.tableWidth);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) b.scores[t + r] = sumLanes(s[r]);
}

static void scanBlock(const ScanBlock& b) {
  float p[ScanBlock::kMost];
  const int64_t rows = b.rows;
  float top = *b.maximum;
  int64_t t = 0;
  for (; t + 4 <= rows; t += 4) scoreRows<4>(b, t);
  for (; t < rows; ++t) scoreRows<1>(b, t);
  for (t = 0; t < rows; ++t) {
    if (b.offset) b.scores[t] += b.offset[t];
    b.scores[t] *= b.scale;
    top = b.scores[t] > top ? b.scores[t] : top;
  }
  const vf shift = set1(top);
  for (t = 0; t < rows; t += W) {
    const int64_t n = rows - t < W ? rows - t : W;
    storeFirst(p + t, exp(loadFirst(b.scores + t, n) - shift), n);
  }
  const vf keep = exp(set1(*b.maximum) - shift);  // exp(-inf - top) meets sums that are still 0
  float sum = *b.sum * keep[0];
  for (t = 0; t < rows; ++t) sum += p[t];
  addRows<true>(b.x, b.ldx, rows, b.width, p, keep, b.acc);
  if (b.second) addRows<true>(b.second, b.ldsecond, rows, b.secondWidth, p, keep, b.accSecond);
  *b.maximum = top;
  *b.sum = sum;
}

}  // namespace
}  // namespace hpformer::HPFORMER_ISA
