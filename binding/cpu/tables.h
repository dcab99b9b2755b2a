// What depends on positions or on a sequence's length but not on its data; made on first use and kept.
#pragma once
#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "binding/contract/segments.h"
#include "binding/contract/spec.h"
#include "binding/contract/weights.h"

namespace hpformer {

// Rows of floats by position, grown in chunks; reading needs no lock once `ensure` has covered the position.
class PositionTable {
 public:
  PositionTable(int64_t width, std::function<void(int64_t, double*)> make);
  ~PositionTable();
  Status ensure(int64_t positions);
  const float* row(int64_t position) const {
    return chunks_[static_cast<size_t>(position / kChunk)].load(std::memory_order_acquire) + position % kChunk * width_;
  }
  // Rows from `position` on that lie side by side.
  static int64_t contiguous(int64_t position) { return kChunk - position % kChunk; }

 private:
  static constexpr int64_t kChunk = 256, kChunks = 1 << 16;
  int64_t width_;
  std::function<void(int64_t, double*)> make_;
  std::mutex mutex_;
  std::vector<std::atomic<float*>> chunks_;
};

// Absorbed embedding: what the algebra of docs/performance.md needs of a sequence length. With q_t = c + PE_t, segment
// s contributes c_s = (sum of q_t over its real rows) / b.
struct LengthTables {
  int64_t steps = 0;
  Segments segments;
  std::vector<float> w;   // [S][F]       W^T c_s
  std::vector<float> cc;  // [S][S]       c_s . c_r
  std::vector<float> fc;  // [S][hidden]  W_f1 c_s
  std::vector<float> cq;  // [steps][S]   c_r . q_t
};

class Tables {
 public:
  Tables(const Spec& spec, std::shared_ptr<const Weights> weights, bool absorbs);

  PositionTable positions;                // [hidden]: what is added to a step
  std::unique_ptr<PositionTable> scores;  // [F]: W^T q_t
  std::unique_ptr<PositionTable> fusion;  // [hidden]: W_f2 q_t
  Status length(int64_t steps, std::shared_ptr<const LengthTables>* out);

 private:
  bool row(int64_t position, double* out) const;  // false: past the end, zeros
  void q(int64_t position, double* out) const;
  const Spec spec_;
  const std::shared_ptr<const Weights> weights_;
  const double scale_;
  std::mutex mutex_;
  std::list<std::shared_ptr<const LengthTables>> lengths_;  // most recent first
};

}  // namespace hpformer
