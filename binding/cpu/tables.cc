#include "tables.h"

#include <algorithm>
#include <new>

#include "binding/contract/positions.h"

namespace hpformer {

PositionTable::PositionTable(int64_t width, std::function<void(int64_t, double*)> make)
    : width_(width), make_(std::move(make)), chunks_(kChunks) {}

PositionTable::~PositionTable() {
  for (auto& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
}

Status PositionTable::ensure(int64_t positions) {
  if (positions > kChunk * kChunks)
    return {StatusCode::limit,
            "expected at most " + std::to_string(kChunk * kChunks) + " steps, got " + std::to_string(positions)};
  const int64_t count = (positions + kChunk - 1) / kChunk;
  if (count > 0 && chunks_[static_cast<size_t>(count - 1)].load(std::memory_order_acquire)) return {};
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<double> row(static_cast<size_t>(width_));
  // Ascending, so that a filled chunk means that all below are filled.
  for (int64_t c = 0; c < count; ++c) {
    auto& slot = chunks_[static_cast<size_t>(c)];
    if (slot.load(std::memory_order_relaxed)) continue;
    std::unique_ptr<float[]> chunk(new float[static_cast<size_t>(kChunk * width_)]);
    for (int64_t i = 0; i < kChunk; ++i) {
      make_(c * kChunk + i, row.data());
      for (int64_t j = 0; j < width_; ++j)
        chunk[static_cast<size_t>(i * width_ + j)] = static_cast<float>(row[static_cast<size_t>(j)]);
    }
    slot.store(chunk.release(), std::memory_order_release);
  }
  return {};
}

Tables::Tables(const Spec& spec, std::shared_ptr<const Weights> weights, bool absorbs)
    : positions(spec.hidden, [this](int64_t p, double* out) { row(p, out); }),
      spec_(spec),
      weights_(std::move(weights)),
      scale_(inputScale(spec)) {
  if (!absorbs) return;
  const int64_t d = spec_.hidden, f = spec_.features;
  scores = std::make_unique<PositionTable>(f, [this, d, f](int64_t p, double* out) {
    std::vector<double> v(static_cast<size_t>(d));
    q(p, v.data());
    std::fill(out, out + f, 0.0);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j < f; ++j)
        out[j] += scale_ * weights_->embedding[static_cast<size_t>(i * f + j)] * v[static_cast<size_t>(i)];
  });
  fusion = std::make_unique<PositionTable>(d, [this, d](int64_t p, double* out) {
    std::vector<double> v(static_cast<size_t>(d));
    q(p, v.data());
    for (int64_t i = 0; i < d; ++i) {
      const double* w = weights_->fusion.data() + i * 2 * d + d;
      double sum = 0;
      for (int64_t j = 0; j < d; ++j) sum += w[j] * v[static_cast<size_t>(j)];
      out[i] = sum;
    }
  });
}

// Tables are filled by the chunk. A learned one ends where its weights do; rows past that are never asked for by a
// valid request.
bool Tables::row(int64_t position, double* out) const {
  if (spec_.positions == PositionKind::learned &&
      position >= static_cast<int64_t>(weights_->positions.size()) / spec_.hidden) {
    std::fill(out, out + spec_.hidden, 0.0);
    return false;
  }
  positionRow(spec_, *weights_, position, out);
  return true;
}

void Tables::q(int64_t position, double* out) const {
  if (!row(position, out)) return;
  for (int64_t i = 0; i < spec_.hidden; ++i) out[i] += scale_ * weights_->embeddingBias[static_cast<size_t>(i)];
}

Status Tables::length(int64_t steps, std::shared_ptr<const LengthTables>* out) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = lengths_.begin(); it != lengths_.end(); ++it)
      if ((*it)->steps == steps) {
        *out = *it;
        lengths_.splice(lengths_.begin(), lengths_, it);
        return {};
      }
  }
  auto made = std::make_shared<LengthTables>();
  made->steps = steps;
  if (Status status = segmentsOf(spec_, steps, &made->segments); !status.ok()) return status;
  const int64_t d = spec_.hidden, f = spec_.features, s = made->segments.count, b = made->segments.length;
  std::vector<double> all(static_cast<size_t>(steps * d)), c(static_cast<size_t>(s * d), 0.0);
  for (int64_t t = 0; t < steps; ++t) {
    q(t, &all[static_cast<size_t>(t * d)]);
    for (int64_t i = 0; i < d; ++i) c[static_cast<size_t>(t / b * d + i)] += all[static_cast<size_t>(t * d + i)];
  }
  for (double& v : c) v /= static_cast<double>(b);
  const auto dot = [d](const double* x, const double* y) {
    double sum = 0;
    for (int64_t i = 0; i < d; ++i) sum += x[i] * y[i];
    return sum;
  };
  made->w.resize(static_cast<size_t>(s * f));
  made->cc.resize(static_cast<size_t>(s * s));
  made->fc.resize(static_cast<size_t>(s * d));
  made->cq.resize(static_cast<size_t>(steps * s));
  for (int64_t r = 0; r < s; ++r) {
    const double* cr = &c[static_cast<size_t>(r * d)];
    for (int64_t j = 0; j < f; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) sum += scale_ * weights_->embedding[static_cast<size_t>(i * f + j)] * cr[i];
      made->w[static_cast<size_t>(r * f + j)] = static_cast<float>(sum);
    }
    for (int64_t o = 0; o < s; ++o)
      made->cc[static_cast<size_t>(r * s + o)] = static_cast<float>(dot(cr, &c[static_cast<size_t>(o * d)]));
    for (int64_t i = 0; i < d; ++i)
      made->fc[static_cast<size_t>(r * d + i)] =
          static_cast<float>(dot(&weights_->fusion[static_cast<size_t>(i * 2 * d)], cr));
    for (int64_t t = 0; t < steps; ++t)
      made->cq[static_cast<size_t>(t * s + r)] = static_cast<float>(dot(&all[static_cast<size_t>(t * d)], cr));
  }
  constexpr size_t kKept = 256;
  std::lock_guard<std::mutex> lock(mutex_);
  lengths_.push_front(made);
  if (lengths_.size() > kKept) lengths_.pop_back();
  *out = std::move(made);
  return {};
}

}  // namespace hpformer
