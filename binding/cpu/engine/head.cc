// Head: dense layers with activations, logits, link. In lanes, one row of the readout a lane.
#include "context.h"

namespace hpformer::cpu {
namespace {

void store(const Context& c, const float* lanes, int64_t ld, int64_t count, int64_t width, const int64_t* rows,
           float* to) {
  if (!to) return;
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  float** out = arena.take<float*>(count);
  for (int64_t i = 0; i < count; ++i) out[i] = to + rows[i] * width;
  c.k.fromLanes(lanes, ld, count, width, out);
}

}  // namespace

void headLanes(const Context& c, const float* x, int64_t ld, int64_t count, const int64_t* rows,
               const Request<float>& r) {
  Arena& arena = Arena::local();
  Arena::Scope scope(arena);
  const size_t hidden = c.packed.head.size() - 1;
  for (size_t j = 0; j <= hidden; ++j) {
    const PackedHead& h = c.packed.head[j];
    float* y = arena.take<float>(h.size * ld);
    Gemm g;
    h.weight.operandOf(&g, c.k);
    g.rows = h.size;
    g.k = h.input;
    g.x = x;
    g.ldx = g.ldc = ld;
    g.c = y;
    g.cols = count;
    g.bias = h.bias.size() > 0 ? h.bias.data() : nullptr;
    g.activation = static_cast<int>(h.activation);
    c.k.gemm(g);
    if (j < hidden) {
      if (r.head) store(c, y, ld, count, h.size, rows, r.head[j]);
      x = y;
      continue;
    }
    store(c, y, ld, count, h.size, rows, r.logits);
    if (!r.probabilities) continue;
    if (c.spec.link != Link::none) c.k.link(static_cast<int>(c.spec.link), y, h.size, ld, count);
    store(c, y, ld, count, h.size, rows, r.probabilities);
  }
}

}  // namespace hpformer::cpu
