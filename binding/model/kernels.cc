#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "binding/contract/float_mode.h"
#include "binding/contract/positions.h"
#include "binding/contract/reference_steps.h"
#include "binding/cpu/backend.h"
#include "cuda/backend.h"
#include "sizes.h"

namespace hpformer {
namespace {

// Carries a refusal out of the nested readers below; never leaves this file.
struct Refusal {
  Status status;
};

[[noreturn]] void refuse(StatusCode code, const std::string& message) { throw Refusal{{code, message}}; }

// float32 runs the CPU backend's kernels, float64 the reference.
template <typename Real>
constexpr bool kOnCpu = std::is_same_v<Real, float>;

template <typename Real>
class Kernel {
 public:
  explicit Kernel(const KernelCall<Real>& call) : call_(call) {}

  void run() {
    if (call_.device >= 0) {
      if (!kOnCpu<Real>) refuse(StatusCode::type, call_.name + ": expected float32 on a CUDA device, got float64");
      done(createCudaKernels(call_.device, call_.timing, &device_));
    }
    const std::string& name = call_.name;
    if (name == "embed") return embed();
    if (name == "segmentPool") return segmentPool();
    if (name == "extraSegmentAttention") return extraSegmentAttention();
    if (name == "intraSegmentAttention") return intraSegmentAttention();
    if (name == "fusion") return fusion();
    if (name == "tdhp") return tdhp();
    if (name == "keyAttention") return keyAttention();
    if (name == "norm") return norm();
    if (name == "dense") return dense();
    if (name == "layer") return layer();
    if (name == "head") return head();
    refuse(StatusCode::input,
           "kernel: expected embed, segmentPool, extraSegmentAttention, intraSegmentAttention, fusion, tdhp, "
           "keyAttention, norm, dense, layer or head, got " +
               name);
  }

 private:
  static void done(const Status& status) {
    if (!status.ok()) throw Refusal{status};
  }
  KernelSizes sizes() const { return {batch_, steps_, d_, count_, length_, heads_}; }

  int64_t number(const char* name, int64_t least, int64_t most = int64_t{1} << 40) const {
    const auto found = call_.parameters.find(name);
    if (found == call_.parameters.end()) refuse(StatusCode::input, where(name) + "is missing");
    const double value = found->second;
    if (!(value >= static_cast<double>(least) && value <= static_cast<double>(most)) || value != std::floor(value)) {
      refuse(StatusCode::range, where(name) + "expected an integer from " + std::to_string(least) + " to " +
                                    std::to_string(most) + ", got " + std::to_string(value));
    }
    return static_cast<int64_t>(value);
  }

  template <typename Enum>
  Enum choice(const char* name, Enum last) const {
    return static_cast<Enum>(number(name, 0, static_cast<int64_t>(last)));
  }

  std::string where(const char* name) const { return call_.name + "." + name + ": "; }

  template <typename Array>
  Array* checked(const char* name, const std::map<std::string, KernelArray<Array>>& arrays,
                 std::initializer_list<int64_t> shape, bool required) const {
    const auto found = arrays.find(name);
    if (found == arrays.end()) {
      if (required) refuse(StatusCode::input, where(name) + "is missing");
      return nullptr;
    }
    int64_t count = 0;
    if (!product(shape, &count)) refuse(StatusCode::shape, where(name) + "its size overflows");
    if (found->second.size != count) {
      refuse(StatusCode::shape,
             where(name) + "expected " + std::to_string(count) + " values, got " + std::to_string(found->second.size));
    }
    return found->second.data;
  }

  const Real* in(const char* name, std::initializer_list<int64_t> shape, bool required = true) const {
    return checked(name, call_.inputs, shape, required);
  }

  Real* out(const char* name, std::initializer_list<int64_t> shape, bool required = true) const {
    return checked(name, call_.outputs, shape, required);
  }

  reference::NormArrays<Real> normArrays(const std::string& prefix, NormKind kind, int64_t d) const {
    const auto named = [&](const char* suffix) {
      std::string name = prefix + suffix;
      if (prefix.empty()) name[0] = static_cast<char>(name[0] - 'A' + 'a');
      return name;
    };
    reference::NormArrays<Real> w;
    w.weight = in(named("Weight").c_str(), {kind == NormKind::scalenorm ? 1 : d});
    if (kind == NormKind::layernorm || kind == NormKind::batchnorm) w.bias = in(named("Bias").c_str(), {d});
    if (kind == NormKind::batchnorm) {
      w.mean = in(named("Mean").c_str(), {d});
      w.variance = in(named("Variance").c_str(), {d});
    }
    return w;
  }

  // batch, steps, hidden, segments and length where a kernel has them; segments must cover the steps.
  void readCut() {
    batch_ = number("batch", 1);
    steps_ = number("steps", 1);
    d_ = number("hidden", 1);
    count_ = number("segments", 1);
    length_ = number("length", 1);
    int64_t rows = 0;
    if (!product({count_, length_}, &rows) || rows < steps_) {
      refuse(StatusCode::shape, where("segments") + "expected segments · length of at least " + std::to_string(steps_) +
                                    ", got " + std::to_string(count_) + " · " + std::to_string(length_));
    }
    // The reference holds a weight for each row of a segment, the appended ones too.
    constexpr int64_t kMostAppended = int64_t{1} << 26;
    if (length_ > std::max(steps_, kMostAppended)) {
      refuse(StatusCode::limit, where("length") + "expected at most " + std::to_string(kMostAppended) +
                                    " rows, or as many as there are steps, got " + std::to_string(length_));
    }
  }

  void readSegments() {
    batch_ = number("batch", 1);
    count_ = number("segments", 1);
    d_ = number("hidden", 1);
  }

  void embed() {
    Spec spec;
    batch_ = number("batch", 1);
    steps_ = number("steps", 1);
    d_ = spec.hidden = number("hidden", 1);
    spec.embedding = choice("kind", EmbeddingKind::scalar);
    const bool tokens = spec.embedding == EmbeddingKind::tokens;
    const int64_t size = spec.embedding == EmbeddingKind::scalar ? 1 : number("size", 1);
    spec.features = spec.vocabulary = size;
    spec.padding = tokens ? number("padding", -1, size - 1) : -1;
    spec.positions = choice("positions", PositionKind::learned);
    spec.scaleInput = number("scaleInput", 0, 1) == 1;
    const Real* weight = tokens ? in("weight", {size, d_}) : in("weight", {d_, size});
    const Real* bias = tokens ? nullptr : in("bias", {d_});
    const int32_t* ids = tokens ? checked("tokens", call_.integers, {batch_, steps_}, true) : nullptr;
    const Real* x = tokens ? nullptr : in("x", {batch_, steps_, size});
    Real* y = out("out", {batch_, steps_, d_});
    Weights weights;
    if (spec.positions == PositionKind::learned) {
      spec.maximum = number("maximum", 1);
      if (steps_ > spec.maximum) {
        refuse(StatusCode::shape,
               where("steps") + "expected at most " + std::to_string(spec.maximum) + ", got " + std::to_string(steps_));
      }
      const int64_t rows = spec.maximum + (tokens ? spec.padding + 1 : 0);
      const Real* table = in("positions", {rows, d_});
      weights.positions.assign(table, table + rows * d_);
    }
    const bool normed = in("normWeight", {d_}, false) != nullptr;
    const reference::NormArrays<Real> norm =
        normed ? normArrays("norm", NormKind::layernorm, d_) : reference::NormArrays<Real>{};

    if constexpr (kOnCpu<Real>) {
      for (int64_t b = 0; device_ && ids && b < batch_; ++b) checkIds(ids + b * steps_, size);
      if (device_)
        return done(device_->embed(spec, sizes(), {x, weight, bias, norm.weight, norm.bias, ids, &weights, y}));
    }

    // The product by the level's own kernel; positions and norm are added in double.
    if constexpr (kOnCpu<Real>)
      if (!ids) cpu::denseRows(x, batch_ * steps_, size, weight, bias, d_, Activation::linear, y);
    const double scale = inputScale(spec);
    std::vector<int64_t> positions(static_cast<size_t>(steps_));
    Vector position(static_cast<size_t>(ids ? d_ : steps_ * d_));  // without tokens the same for all sequences
    for (int64_t b = 0; b < batch_; ++b) {
      if (ids) checkIds(ids + b * steps_, size);
      positionsOf(spec, ids ? ids + b * steps_ : nullptr, steps_, positions.data());
      for (int64_t t = 0; t < steps_; ++t) {
        const int64_t at = b * steps_ + t;
        Real* row = y + at * d_;
        if (isPadding(spec, ids ? ids + b * steps_ : nullptr, t)) {
          std::fill_n(row, d_, Real{0});
          continue;
        }
        if (ids) {
          std::copy_n(weight + ids[at] * d_, d_, row);
        } else if (!kOnCpu<Real>) {
          reference::dense(x + at * size, 1, size, weight, bias, d_, Activation::linear, row);
        }
        const double* add = position.data() + (ids ? 0 : t * d_);
        if (ids || b == 0) positionRow(spec, weights, positions[t], position.data() + (ids ? 0 : t * d_));
        for (int64_t i = 0; i < d_; ++i) row[i] = static_cast<Real>(row[i] * scale + add[i]);
        if (normed) reference::norm(NormKind::layernorm, norm, d_, row);
      }
    }
  }

  void checkIds(const int32_t* ids, int64_t vocabulary) const {
    for (int64_t t = 0; t < steps_; ++t) {
      if (ids[t] >= 0 && ids[t] < vocabulary) continue;
      refuse(StatusCode::range, where("tokens") + "expected ids from 0 to " + std::to_string(vocabulary - 1) +
                                    ", got " + std::to_string(ids[t]));
    }
  }

  void segmentPool() {
    readCut();
    const Pooling pooling = choice("pooling", Pooling::max);
    const Real* x = in("x", {batch_, steps_, d_});
    Real* y = out("out", {batch_, count_, d_});
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->segmentPool(sizes(), x, pooling, y));
    for (int64_t b = 0; b < batch_; ++b) {
      const Real* rows = x + b * steps_ * d_;
      if constexpr (kOnCpu<Real>) {
        cpu::poolRows(rows, steps_, d_, count_, length_, pooling, y + b * count_ * d_);
      } else {
        reference::segmentPool(rows, steps_, d_, count_, length_, pooling, y + b * count_ * d_);
      }
    }
  }

  void extraSegmentAttention() {
    readSegments();
    const Real* x = in("x", {batch_, count_, d_});
    Real* y = out("out", {batch_, count_, d_});
    Real* weights = out("weights", {batch_, count_, count_}, false);
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->extraSegmentAttention(sizes(), x, y, weights));
    for (int64_t b = 0; b < batch_; ++b) {
      Real* own = weights ? weights + b * count_ * count_ : nullptr;
      if constexpr (kOnCpu<Real>) {
        cpu::extraRows(x + b * count_ * d_, count_, d_, y + b * count_ * d_, own);
      } else {
        reference::extraSegmentAttention(x + b * count_ * d_, count_, d_, y + b * count_ * d_, own);
      }
    }
  }

  void intraSegmentAttention() {
    readCut();
    const Real* extra = in("extra", {batch_, count_, d_});
    const Real* x = in("x", {batch_, steps_, d_});
    Real* y = out("out", {batch_, count_, d_});
    Real* weights = out("weights", {batch_, steps_}, false);
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->intraSegmentAttention(sizes(), extra, x, y, weights));
    for (int64_t b = 0; b < batch_; ++b) {
      const Real *queries = extra + b * count_ * d_, *rows = x + b * steps_ * d_;
      Real *to = y + b * count_ * d_, *own = weights ? weights + b * steps_ : nullptr;
      if constexpr (kOnCpu<Real>) {
        cpu::intraRows(queries, rows, steps_, d_, count_, length_, to, own);
      } else {
        reference::intraSegmentAttention(queries, rows, steps_, d_, count_, length_, to, own);
      }
    }
  }

  void fusion() {
    readSegments();
    const Real* extra = in("extra", {batch_, count_, d_});
    const Real* intra = in("intra", {batch_, count_, d_});
    const Real* weight = in("weight", {d_, 2, d_});
    const Real* bias = in("bias", {d_});
    Real* y = out("out", {batch_, count_, d_});
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->fusion(sizes(), extra, intra, weight, bias, y));
    if constexpr (kOnCpu<Real>) {
      cpu::fusionRows(extra, intra, batch_ * count_, d_, weight, bias, y);
    } else {
      reference::fusion(extra, intra, batch_ * count_, d_, weight, bias, y);
    }
  }

  void tdhp() {
    readCut();
    const Pooling pooling = choice("pooling", Pooling::max);
    const Real* x = in("x", {batch_, steps_, d_});
    const Real* weight = in("weight", {d_, 2, d_});
    const Real* bias = in("bias", {d_});
    Real* y = out("out", {batch_, count_, d_});
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->tdhp(sizes(), x, pooling, weight, bias, y));
    for (int64_t b = 0; b < batch_; ++b) {
      const Real* rows = x + b * steps_ * d_;
      Real* keys = y + b * count_ * d_;
      if constexpr (kOnCpu<Real>) {
        cpu::tdhpRows(rows, steps_, d_, count_, length_, pooling, weight, bias, keys);
      } else {
        const size_t size = static_cast<size_t>(count_ * d_);
        std::vector<Real> pool(size), extra(size), intra(size);
        reference::segmentPool(rows, steps_, d_, count_, length_, pooling, pool.data());
        reference::extraSegmentAttention<Real>(pool.data(), count_, d_, extra.data(), nullptr);
        reference::intraSegmentAttention<Real>(extra.data(), rows, steps_, d_, count_, length_, intra.data(), nullptr);
        reference::fusion(extra.data(), intra.data(), count_, d_, weight, bias, keys);
      }
    }
  }

  // batch, steps, hidden, segments, heads of the two kernels that read the compressed keys.
  void readHeads() {
    readSegments();
    steps_ = number("steps", 1);
    heads_ = number("heads", 1);
    if (d_ % heads_ != 0) {
      refuse(StatusCode::shape,
             where("heads") + "expected a divisor of " + std::to_string(d_) + ", got " + std::to_string(heads_));
    }
  }

  void keyAttention() {
    readHeads();
    const Real* x = in("x", {batch_, steps_, d_});
    const Real* keys = in("keys", {batch_, count_, d_});
    Real* y = out("out", {batch_, steps_, d_});
    Real* weights = out("weights", {batch_, steps_, heads_, count_}, false);
    if constexpr (kOnCpu<Real>) {
      if (device_) return done(device_->keyAttention(sizes(), x, keys, y, weights));
      for (int64_t b = 0; b < batch_; ++b) {
        const int64_t at = b * steps_;
        cpu::keyAttentionRows(x + at * d_, steps_, d_, keys + b * count_ * d_, count_, heads_, y + at * d_,
                              weights ? weights + at * heads_ * count_ : nullptr);
      }
      return;
    }
    for (int64_t r = 0; r < batch_ * steps_; ++r) {
      reference::keyAttention(x + r * d_, keys + r / steps_ * count_ * d_, count_, d_, heads_, y + r * d_,
                              weights ? weights + r * heads_ * count_ : nullptr, count_);
    }
  }

  void norm() {
    const int64_t rows = number("rows", 1);
    d_ = number("hidden", 1);
    const NormKind kind = choice("norm", NormKind::rmsnorm);
    const reference::NormArrays<Real> w = normArrays("", kind, d_);
    const Real* x = in("x", {rows, d_});
    Real* y = out("out", {rows, d_});
    if constexpr (kOnCpu<Real>) {
      if (device_) return done(device_->norm(kind, w, rows, d_, x, y));
      return cpu::normRows(kind, w, x, rows, d_, y);
    }
    std::copy_n(x, rows * d_, y);
    for (int64_t r = 0; r < rows; ++r) reference::norm(kind, w, d_, y + r * d_);
  }

  void dense() {
    const int64_t rows = number("rows", 1), width = number("inputs", 1), height = number("outputs", 1);
    const Activation activation = choice("activation", Activation::geluTanh);
    const Real *x = in("x", {rows, width}), *weight = in("weight", {height, width}),
               *bias = in("bias", {height}, false);
    Real* y = out("out", {rows, height});
    if constexpr (kOnCpu<Real>) {
      if (device_) return done(device_->dense(x, rows, width, weight, bias, height, activation, y));
      cpu::denseRows(x, rows, width, weight, bias, height, activation, y);
    } else {
      reference::dense(x, rows, width, weight, bias, height, activation, y);
    }
  }

  void layer() {
    readHeads();
    const Activation activation = choice("activation", Activation::geluTanh);
    const NormKind kind = choice("norm", NormKind::rmsnorm);
    reference::LayerArrays<Real> w;
    w.output = in("output", {d_, d_});
    w.norm1 = normArrays("norm1", kind, d_);
    w.feedForward = in("feedForward", {d_, d_});
    w.feedForwardBias = in("feedForwardBias", {d_});
    w.norm2 = normArrays("norm2", kind, d_);
    const Real* x = in("x", {batch_, steps_, d_});
    const Real* keys = in("keys", {batch_, count_, d_});
    Real* y = out("out", {batch_, steps_, d_});
    if constexpr (kOnCpu<Real>) {
      if (device_) return done(device_->layer(sizes(), x, keys, w, kind, activation, y));
      for (int64_t b = 0; b < batch_; ++b) {
        const int64_t at = b * steps_ * d_;
        cpu::layerRows(x + at, steps_, d_, keys + b * count_ * d_, count_, heads_, w, kind, activation, y + at);
      }
      return;
    }
    std::copy_n(x, batch_ * steps_ * d_, y);
    for (int64_t r = 0; r < batch_ * steps_; ++r) {
      reference::layer<Real>(w, kind, activation, keys + r / steps_ * count_ * d_, count_, d_, heads_, y + r * d_,
                             nullptr, 0);
    }
  }

  void head() {
    const int64_t rows = number("rows", 1), width = number("inputs", 1), labels = number("labels", 1);
    const Link kind = choice("link", Link::softmax);
    Real* logits = out("logits", {rows, labels});
    Real* probabilities = out("probabilities", {rows, labels}, false);
    const Real *x = in("x", {rows, width}), *weight = in("weight", {labels, width}),
               *bias = in("bias", {labels}, false);
    if constexpr (kOnCpu<Real>)
      if (device_) return done(device_->head(x, rows, width, weight, bias, labels, kind, logits, probabilities));
    if constexpr (kOnCpu<Real>) {
      cpu::denseRows(x, rows, width, weight, bias, labels, Activation::linear, logits);
    } else {
      reference::dense(x, rows, width, weight, bias, labels, Activation::linear, logits);
    }
    for (int64_t r = 0; probabilities && r < rows; ++r) {
      reference::link(kind, logits + r * labels, labels, probabilities + r * labels);
    }
  }

  const KernelCall<Real>& call_;
  std::unique_ptr<KernelDevice> device_;  // null on the CPU
  int64_t batch_ = 0, steps_ = 0, d_ = 0, count_ = 0, length_ = 0, heads_ = 0;
};

}  // namespace

template <typename Real>
Status runKernel(const KernelCall<Real>& call) {
  const DefaultFloatMode mode;
  try {
    Kernel<Real>(call).run();
    return {};
  } catch (const Refusal& refusal) {
    return refusal.status;
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "its buffers could not be allocated"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

template Status runKernel(const KernelCall<float>&);
template Status runKernel(const KernelCall<double>&);

}  // namespace hpformer
