// `kernels.*` on a CUDA device: host arrays in, the kernels that models run there, host arrays out. `tdhp` and `layer`
// take the fused kernels where the width has them, else their single steps; all others are the kernels of the unfused
// path.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>

#include "backend.h"
#include "binding/contract/positions.h"
#include "layout.h"
#include "model.h"
#include "modules.h"
#include "program.h"

namespace hpformer {
namespace cuda {
namespace {

constexpr int64_t kScoreFloats = 8192;  // shared memory of the score kernels stays below 48 KB
constexpr int64_t kBatch = 65535;       // grid rows
constexpr int64_t kRows = INT32_MAX;    // kernels count them in 32 bits

Vector doubles(const float* from, int64_t count) { return from ? Vector(from, from + count) : Vector(); }

float scaleOf(int64_t width) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(width))); }

class Calls : public KernelDevice {
 public:
  Calls(std::shared_ptr<Device> device, KernelTiming timing) : device_(std::move(device)), timing_(timing) {}

  Status embed(const Spec& spec, const KernelSizes& z, const EmbedArrays& a) override {
    const bool tokens = spec.embedding == EmbeddingKind::tokens, features = spec.embedding == EmbeddingKind::features;
    const bool padded = tokens && spec.padding >= 0;
    const int64_t rows = z.batch * z.steps, d = z.hidden,
                  size = features ? spec.features
                         : tokens ? spec.vocabulary
                                  : 1;
    const double scale = inputScale(spec);
    std::vector<float> weight(a.weight, a.weight + size * d);
    for (float& w : weight) w = static_cast<float>(w * scale);
    // bias + position vector of every position, rounded once.
    const int64_t positions = z.steps + (padded ? spec.padding + 1 : 0);
    std::vector<float> origin(static_cast<size_t>(positions * d));
    Vector row(static_cast<size_t>(d));
    for (int64_t p = 0; p < positions; ++p) {
      if (spec.positions == PositionKind::learned && (p + 1) * d > static_cast<int64_t>(a.learned->positions.size()))
        break;
      positionRow(spec, *a.learned, p, row.data());
      for (int64_t i = 0; i < d; ++i)
        origin[static_cast<size_t>(p * d + i)] =
            static_cast<float>(row[static_cast<size_t>(i)] + (a.bias ? a.bias[i] * scale : 0.0));
    }
    std::vector<int> position;
    for (int64_t b = 0; padded && b < z.batch; ++b) {
      std::vector<int64_t> own(static_cast<size_t>(z.steps));
      positionsOf(spec, a.tokens + b * z.steps, z.steps, own.data());
      for (int64_t t = 0; t < z.steps; ++t)
        position.push_back(isPadding(spec, a.tokens + b * z.steps, t) ? -1
                                                                      : static_cast<int>(own[static_cast<size_t>(t)]));
    }
    return run(z, [&] {
      EmbedParams p{};
      p.batch = static_cast<int>(z.batch);
      p.info = infos(z);
      p.out = result(a.out, rows * d);
      RowSource& s = p.source;
      s.kind = features ? Embed::features : tokens ? Embed::tokens : Embed::scalar;
      s.steps = static_cast<int>(z.steps);
      s.hidden = static_cast<int>(d);
      s.features = static_cast<int>(size);
      s.origin = stage(origin.data(), positions * d);
      s.originStride = static_cast<int>(d);
      s.position = padded ? stage(position.data(), rows) : nullptr;
      s.normWeight = stage(a.normWeight, d);
      s.normBias = stage(a.normBias, d);
      const float* table = stage(weight.data(), size * d);
      if (features) {
        program_->dense(stage(a.x, rows * size), nullptr, size, table, nullptr, rows, d, size, Act::linear, p.out);
      } else {
        s.table = table;
        s.tokens = tokens ? stage(a.tokens, rows) : nullptr;
        s.values = tokens ? nullptr : stage(a.x, rows);
      }
      program_->launch("embed", {(rows + 3) / 4}, 128, 0, p);
    });
  }

  Status segmentPool(const KernelSizes& z, const float* x, Pooling pooling, float* out) override {
    return run(z, [&] {
      pool(z, stage(x, z.batch * z.steps * z.hidden), pooling, result(out, z.batch * z.segments * z.hidden));
    });
  }

  Status extraSegmentAttention(const KernelSizes& z, const float* x, float* out, float* weights) override {
    const int64_t count = z.batch * z.segments;
    return run(z, [&] {
      extra(z, stage(x, count * z.hidden), result(out, count * z.hidden),
            weights ? result(weights, count * z.segments) : nullptr);
    });
  }

  Status intraSegmentAttention(const KernelSizes& z, const float* extra, const float* x, float* out,
                               float* weights) override {
    return run(z, [&] {
      intra(z, stage(x, z.batch * z.steps * z.hidden), stage(extra, z.batch * z.segments * z.hidden),
            result(out, z.batch * z.segments * z.hidden), result(weights, z.batch * z.steps));
    });
  }

  Status fusion(const KernelSizes& z, const float* extra, const float* intra, const float* weight, const float* bias,
                float* out) override {
    const int64_t rows = z.batch * z.segments, d = z.hidden;
    return run(z, [&] {
      program_->dense(stage(extra, rows * d), stage(intra, rows * d), d, stage(weight, 2 * d * d), stage(bias, d), rows,
                      d, 2 * d, Act::linear, result(out, rows * d));
    });
  }

  Status tdhp(const KernelSizes& z, const float* x, Pooling pooling, const float* weight, const float* bias,
              float* out) override {
    const int64_t d = z.hidden, rows = z.batch * z.segments;
    const int hidden = static_cast<int>(d), segments = static_cast<int>(z.segments);
    const size_t shared =
        z.segments > kMaxSegments || !hasFusedWidth(d)
            ? 0
            : 4 * static_cast<size_t>(tdhpFloats(hidden, segments, 1, 0, 0, 0) + keyFloats(hidden, segments));
    if (shared > 0 && shared <= device_->sharedLimit()) {
      std::vector<float> turned(static_cast<size_t>(2 * d * d));  // [2 hidden, hidden]
      for (int64_t n = 0; n < d; ++n)
        for (int64_t k = 0; k < 2 * d; ++k) turned[static_cast<size_t>(k * d + n)] = weight[n * 2 * d + k];
      return run(z, [&] {
        TdhpParams p{};
        p.source = rowSource(z, stage(x, z.batch * z.steps * d));
        p.info = infos(z);
        p.segments = p.segmentsMax = segments;
        p.max = pooling == Pooling::max;
        p.scale = scaleOf(d);
        p.fusion = stage(turned.data(), 2 * d * d);
        p.fusionBias = stage(bias, d);
        p.keys = result(out, rows * d);
        // Blocks that compute keys, and no tiles behind them.
        StackParams all{};
        all.tdhp = p;
        all.batch = all.ahead = static_cast<int>(z.batch);
        all.shares = 1;
        program_->launch("stack_" + std::to_string(d) + "_f32_1", {z.batch}, 256, shared, all);
      });
    }
    return run(z, [&] {
      const float* from = stage(x, z.batch * z.steps * d);
      float* means = program_->scratch<float>(rows * d);
      float* among = program_->scratch<float>(rows * d);
      float* inside = program_->scratch<float>(rows * d);
      pool(z, from, pooling, means);
      extra(z, means, among, nullptr);
      intra(z, from, among, inside, program_->scratch<float>(z.batch * z.steps));
      program_->dense(among, inside, d, stage(weight, 2 * d * d), stage(bias, d), rows, d, 2 * d, Act::linear,
                      result(out, rows * d));
    });
  }

  Status keyAttention(const KernelSizes& z, const float* x, const float* keys, float* out, float* weights) override {
    const int64_t rows = z.batch * z.steps;
    return run(z, [&] {
      attend(z, stage(x, rows * z.hidden), stage(keys, z.batch * z.segments * z.hidden), result(out, rows * z.hidden),
             weights ? result(weights, rows * z.heads * z.segments) : nullptr);
    });
  }

  Status norm(NormKind kind, const reference::NormArrays<float>& w, int64_t rows, int64_t d, const float* x,
              float* out) override {
    return run(rowsOnly(rows), [&] { normStep(kind, w, d, stage(x, rows * d), nullptr, rows, result(out, rows * d)); });
  }

  Status dense(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias, int64_t outputs,
               Activation activation, float* out) override {
    return run(rowsOnly(rows), [&] {
      program_->dense(stage(x, rows * inputs), nullptr, inputs, stage(weight, inputs * outputs), stage(bias, outputs),
                      rows, outputs, inputs, static_cast<Act>(activation), result(out, rows * outputs));
    });
  }

  Status layer(const KernelSizes& z, const float* x, const float* keys, const reference::LayerArrays<float>& w,
               NormKind kind, Activation activation, float* out) override {
    const int64_t d = z.hidden, rows = z.batch * z.steps;
    const auto bytes = [&](int stages) {
      return StackLayout(static_cast<int>(d), 4, stages, 16, 0,
                         static_cast<int>(std::min<int64_t>(z.segments, kMaxSegments)), 0, 0, 0, 0, 0, 0, 1, 0)
          .total;
    };
    const int limit = static_cast<int>(device_->sharedLimit());
    const bool tight = bytes(kMostStages) > limit && hasTight(static_cast<int>(d), false);
    const int stages = tight ? kLeastStages : kMostStages;
    if (z.segments <= kMaxSegments && hasFusedWidth(d) && bytes(stages) <= limit) {
      std::shared_ptr<DeviceModel> model;
      if (Status s = oneLayer(z, w, kind, activation, &model); !s.ok()) return s;
      return run(z, [&] {
        StackParams p{};
        p.tdhp.source = rowSource(z, stage(x, rows * d));
        p.tdhp.info = infos(z);
        p.tdhp.segments = p.tdhp.segmentsMax = static_cast<int>(z.segments);
        p.tdhp.keys = const_cast<float*>(stage(keys, z.batch * z.segments * d));  // only read: nothing computes them
        p.tiles = static_cast<int>((z.steps + 15) / 16);
        p.batch = static_cast<int>(z.batch);
        p.heads = static_cast<int>(z.heads);
        p.scale = static_cast<float>(1.44269504088896340736 / std::sqrt(static_cast<double>(d / z.heads)));
        p.layers = 1;
        p.norm = kind == NormKind::layernorm   ? Norm::layernorm
                 : kind == NormKind::batchnorm ? Norm::affine
                 : kind == NormKind::scalenorm ? Norm::scalenorm
                                               : Norm::rmsnorm;
        p.activation = static_cast<Act>(activation);
        p.weights = reinterpret_cast<const char*>(model->at(model->stream));
        p.slicesInLayer = static_cast<int>(2 * d * 4 / 64);
        p.vectors = model->at(model->vectors);
        p.vectorStride = static_cast<int>(5 * d);
        p.pick = Pick::steps;
        p.encoded = result(out, rows * d);
        program_->launch("stack_" + std::to_string(d) + (tight ? "_f32_tight_1" : "_f32_1"), {p.tiles * z.batch}, 128,
                         static_cast<size_t>(bytes(stages)), p);
      });
    }
    return run(z, [&] {
      const float* from = stage(x, rows * d);
      float* mixed = program_->scratch<float>(rows * d);
      float* branch = program_->scratch<float>(rows * d);
      float* middle = program_->scratch<float>(rows * d);
      attend(z, from, stage(keys, z.batch * z.segments * d), mixed, nullptr);
      program_->dense(mixed, nullptr, d, stage(w.output, d * d), nullptr, rows, d, d, Act::linear, branch);
      normStep(kind, w.norm1, d, from, branch, rows, middle);
      program_->dense(middle, nullptr, d, stage(w.feedForward, d * d), stage(w.feedForwardBias, d), rows, d, d,
                      static_cast<Act>(activation), branch);
      normStep(kind, w.norm2, d, middle, branch, rows, result(out, rows * d));
    });
  }

  Status head(const float* x, int64_t rows, int64_t inputs, const float* weight, const float* bias, int64_t labels,
              Link link, float* logits, float* probabilities) override {
    return run(rowsOnly(rows), [&] {
      float* out = result(logits, rows * labels);
      program_->dense(stage(x, rows * inputs), nullptr, inputs, stage(weight, inputs * labels), stage(bias, labels),
                      rows, labels, inputs, Act::linear, out);
      if (!probabilities) return;
      const LinkParams p{out,
                         nullptr,
                         1,
                         static_cast<int>(rows),
                         static_cast<int>(labels),
                         static_cast<int>(link),
                         0,
                         result(probabilities, rows * labels)};
      program_->launch("link", {(rows + 3) / 4}, 128, 0, p);
    });
  }

 private:
  static KernelSizes rowsOnly(int64_t rows) {
    KernelSizes z;
    z.batch = 1;
    z.steps = rows;
    return z;
  }

  template <typename T>
  T* result(T* to, int64_t count) {
    return program_->result(to, count);
  }
  template <typename T>
  const T* stage(const T* from, int64_t count) {
    if (!from) return nullptr;
    T* host = nullptr;
    T* device = program_->stage<T>(count, &host);
    if (host) std::memcpy(host, from, static_cast<size_t>(count) * sizeof(T));
    return device;
  }

  const SequenceInfo* infos(const KernelSizes& z) {
    SequenceInfo info{};
    info.steps = info.rows = static_cast<int>(z.steps);
    info.segments = static_cast<int>(z.segments);
    info.segmentLength = static_cast<int>(z.length);
    info.divisor = static_cast<float>(z.steps);
    const std::vector<SequenceInfo> all(static_cast<size_t>(z.batch), info);
    return stage(all.data(), z.batch);
  }

  static RowSource rowSource(const KernelSizes& z, const float* rows) {
    RowSource source{};
    source.kind = Embed::rows;
    source.steps = static_cast<int>(z.steps);
    source.hidden = static_cast<int>(z.hidden);
    source.rows = rows;
    return source;
  }

  void pool(const KernelSizes& z, const float* x, Pooling pooling, float* out) {
    const PoolParams p{x,
                       infos(z),
                       static_cast<int>(z.steps),
                       static_cast<int>(z.hidden),
                       static_cast<int>(z.segments),
                       pooling == Pooling::max,
                       out};
    program_->launch("segmentPool", {z.segments, z.batch}, 128, 0, p);
  }

  void extra(const KernelSizes& z, const float* x, float* out, float* weights) {
    const ExtraParams p{x,   infos(z), static_cast<int>(z.hidden), static_cast<int>(z.segments), scaleOf(z.hidden),
                        out, weights};
    program_->launch("extraSegment", {z.segments, z.batch}, 128, static_cast<size_t>(z.segments) * sizeof(float), p);
  }

  void intra(const KernelSizes& z, const float* x, const float* extra, float* out, float* weights) {
    program_->clear(weights, z.batch * z.steps * static_cast<int64_t>(sizeof(float)));
    const IntraParams p{x,
                        extra,
                        infos(z),
                        static_cast<int>(z.steps),
                        static_cast<int>(z.hidden),
                        static_cast<int>(z.segments),
                        scaleOf(z.hidden),
                        out,
                        weights};
    program_->launch("intraSegment", {z.segments, z.batch}, 128, 0, p);
  }

  void attend(const KernelSizes& z, const float* x, const float* keys, float* out, float* weights) {
    KeyAttentionParams p{};
    p.x = x;
    p.keys = keys;
    p.info = infos(z);
    p.rows = static_cast<int>(z.steps);
    p.hidden = static_cast<int>(z.hidden);
    p.heads = static_cast<int>(z.heads);
    p.segmentsMax = static_cast<int>(z.segments);
    p.scale = scaleOf(z.hidden / z.heads);
    p.headsAtOnce = static_cast<int>(std::clamp<int64_t>(kScoreFloats / z.segments, 1, z.heads));
    p.out = out;
    p.weights = weights;
    p.weightStride = static_cast<int>(z.heads * z.segments);
    const size_t shared = static_cast<size_t>(p.headsAtOnce * z.segments) * sizeof(float);
    program_->launch("keyAttention", {z.steps, z.batch}, 128, shared, p);
  }

  void normStep(NormKind kind, const reference::NormArrays<float>& w, int64_t d, const float* x, const float* branch,
                int64_t rows, float* out) {
    NormParams p{x, branch, nullptr, nullptr, out, static_cast<int>(rows), static_cast<int>(d), Norm::layernorm};
    if (kind == NormKind::batchnorm) {  // one multiply-add
      std::vector<float> scale(static_cast<size_t>(d)), shift(static_cast<size_t>(d));
      for (int64_t i = 0; i < d; ++i) {
        const double factor = w.weight[i] / std::sqrt(w.variance[i] + kNormEpsilon);
        scale[static_cast<size_t>(i)] = static_cast<float>(factor);
        shift[static_cast<size_t>(i)] = static_cast<float>(w.bias[i] - w.mean[i] * factor);
      }
      p.kind = Norm::affine;
      p.weight = stage(scale.data(), d);
      p.bias = stage(shift.data(), d);
    } else {
      p.kind = kind == NormKind::layernorm   ? Norm::layernorm
               : kind == NormKind::scalenorm ? Norm::scalenorm
                                             : Norm::rmsnorm;
      p.weight = stage(w.weight, kind == NormKind::scalenorm ? 1 : d);
      p.bias = stage(w.bias, d);
    }
    program_->launch("norm", {(rows + 3) / 4}, 128, 0, p);
  }

  // The layer's weights in the layouts of `stack`: a model of one layer has them.
  Status oneLayer(const KernelSizes& z, const reference::LayerArrays<float>& w, NormKind kind, Activation activation,
                  std::shared_ptr<DeviceModel>* out) {
    const int64_t d = z.hidden;
    const auto normOf = [&](const reference::NormArrays<float>& from) {
      return NormWeights{doubles(from.weight, kind == NormKind::scalenorm ? 1 : d), doubles(from.bias, d),
                         doubles(from.mean, d), doubles(from.variance, d)};
    };
    Spec spec;
    spec.embedding = EmbeddingKind::tokens;
    spec.vocabulary = spec.layers = 1;
    spec.hidden = d;
    spec.heads = z.heads;
    spec.norm = kind;
    spec.activation = activation;
    spec.headBias = false;
    Weights weights;
    weights.embedding = weights.fusionBias = weights.output = Vector(static_cast<size_t>(d));
    weights.fusion = Vector(static_cast<size_t>(2 * d * d));
    weights.layers.push_back({doubles(w.output, d * d), normOf(w.norm1), doubles(w.feedForward, d * d),
                              doubles(w.feedForwardBias, d), normOf(w.norm2)});
    return DeviceModel::acquire(spec, weights, device_->ordinal(), Precision::float32, "", out);
  }

  // Runs what `build` queues: once with its copies, then as often as times are wanted without them.
  Status run(const KernelSizes& z, const std::function<void()>& build) {
    if (z.batch > kBatch || z.batch * std::max(z.steps, z.segments) > kRows || z.segments > kScoreFloats) {
      return {StatusCode::limit, "expected at most " + std::to_string(kBatch) + " sequences, " + std::to_string(kRows) +
                                     " rows and " + std::to_string(kScoreFloats) + " segments on a CUDA device"};
    }
    try {
      if (Status s = device_->poisoned(); !s.ok()) return s;
      Device::Current current(*device_);
      if (!current.status().ok()) return current.status();
      Lane* lane = nullptr;
      if (Status s = device_->take(&lane); !s.ok()) return s;
      // An exception on the way must not keep the lane, nor give it away with work under way on it.
      const auto give = [this](Lane* taken) {
        (void)device_->driver().streamSynchronize(taken->stream);
        device_->give(taken);
      };
      const std::unique_ptr<Lane, decltype(give)> taken(lane, give);
      return inLane(*lane, build);
    } catch (const std::bad_alloc&) {
      return {StatusCode::memory, "cuda: the host ran out of memory"};
    } catch (const std::exception& error) {
      return {StatusCode::internal, error.what()};
    }
  }

  Status inLane(Lane& lane, const std::function<void()>& build) {
    Program program;
    program_ = &program;
    build();
    if (Status s = device_->grow(lane, program.arena.bytes(), program.arena.inputBytes() + program.arena.outputBytes());
        !s.ok())
      return s;
    program.arena.place(lane.arena.address(), static_cast<char*>(lane.pinned));
    program.restart();
    build();
    const Status started = program.start(*device_, lane);
    const Status finished = program.finish(*device_, lane, started.ok());
    if (!started.ok()) return started;
    if (!finished.ok()) return finished;
    int together = 1;
    for (int i = -1; i < timing_.repetitions;
         ++i) {  // the first is a warm-up, which also says how many fill a millisecond
      const auto start = std::chrono::steady_clock::now();
      for (int n = 0; n < together; ++n) {
        if (Status s = program.repeat(*device_, lane); !s.ok()) return s;
      }
      if (Status s = device_->check(device_->driver().streamSynchronize(lane.stream), "cuStreamSynchronize"); !s.ok())
        return s;
      const double ms =
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / together;
      if (i >= 0) timing_.times[i] = ms;
      if (i < 0) together = static_cast<int>(std::clamp(1.0 / std::max(ms, 1e-6), 1.0, 64.0));
    }
    return {};
  }

  const std::shared_ptr<Device> device_;
  const KernelTiming timing_;
  Program* program_ = nullptr;
};

}  // namespace
}  // namespace cuda

Status createCudaKernels(int ordinal, const KernelTiming& timing, std::unique_ptr<KernelDevice>* out) {
  try {
    std::shared_ptr<cuda::Device> device;
    if (Status s = cuda::Device::acquire(ordinal, &device); !s.ok()) return s;
    *out = std::make_unique<cuda::Calls>(std::move(device), timing);
    return {};
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "cuda: the host ran out of memory"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

}  // namespace hpformer
