#include "model.h"

#include <charconv>
#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "binding/contract/float_mode.h"
#include "binding/contract/reference.h"
#include "binding/cpu/backend.h"
#include "cuda/backend.h"

namespace hpformer {
namespace {

int64_t bytesOf(const NormWeights& w) {
  return static_cast<int64_t>((w.weight.size() + w.bias.size() + w.mean.size() + w.variance.size()) * sizeof(double));
}

int64_t bytesOf(const Weights& w) {
  size_t values = w.embedding.size() + w.embeddingBias.size() + w.positions.size() + w.fusion.size() +
                  w.fusionBias.size() + w.output.size() + w.outputBias.size();
  int64_t norms = bytesOf(w.embeddingNorm);
  for (const LayerWeights& layer : w.layers) {
    values += layer.output.size() + layer.feedForward.size() + layer.feedForwardBias.size();
    norms += bytesOf(layer.norm1) + bytesOf(layer.norm2);
  }
  for (const HeadLayerWeights& layer : w.head) values += layer.weight.size() + layer.bias.size();
  return static_cast<int64_t>(values * sizeof(double)) + norms;
}

}  // namespace

Plan planOf(uint32_t rewrites, Precision precision) {
  Plan plan;
  bool* const fields[] = {&plan.depthFirst,  &plan.readoutPruning, &plan.absorbedEmbedding, &plan.zeroRowsClosedForm,
                          &plan.tokenTables, &plan.foldedOutput,   &plan.foldedWeights};
  for (bool* field : fields) {
    *field = rewrites & 1;
    rewrites >>= 1;
  }
  plan.precision = precision;
  return plan;
}

template <typename Arrays>
Status Model::createFrom(const Spec& spec, Arrays&& arrays, const ModelOptions& options,
                         std::shared_ptr<const Model>* out) {
  const DefaultFloatMode mode;
  try {
    auto model = std::make_shared<Model>();
    auto weights = std::make_shared<Weights>();
    if (Status status = takeWeights(spec, std::forward<Arrays>(arrays), weights.get()); !status.ok()) return status;
    model->spec_ = spec;
    model->precision_ = options.precision;
    model->rejectNonFinite_ = options.rejectNonFinite;
    model->weights_ = std::move(weights);
    if (Status status = model->connect(options); !status.ok()) return status;
    *out = std::move(model);
    return {};
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "the model's weights could not be allocated"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

Status Model::create(const Spec& spec, const NamedArrays& arrays, const ModelOptions& options,
                     std::shared_ptr<const Model>* out) {
  return createFrom(spec, arrays, options, out);
}

Status Model::create(const Spec& spec, NamedArrays&& arrays, const ModelOptions& options,
                     std::shared_ptr<const Model>* out) {
  return createFrom(spec, std::move(arrays), options, out);
}

Status Model::connect(const ModelOptions& options) {
  const std::string& device = options.device;
  if (device == "reference") {
    packedBytes_ = bytesOf(*weights_);
    return {};
  }
  Status status{StatusCode::device, "device: expected reference, cpu, cuda:<n> or cuda:all, got " + device};
  if (device == "cpu") {
    CpuOptions cpu;
    cpu.precision = options.precision;
    cpu.threads = options.threads;
    cpu.key = options.key;
    status = createCpuBackend(spec_, weights_, cpu, &backend_);
  } else if (device.starts_with("cuda:")) {
    CudaOptions cuda;
    cuda.precision = options.precision;
    cuda.key = options.key;
    const char* begin = device.data() + 5;
    const char* end = device.data() + device.size();
    const bool all = device == "cuda:all";
    if (all) cuda.device = -1;
    const auto [last, error] = std::from_chars(begin, end, cuda.device);
    if (!all && (error != std::errc() || last != end || cuda.device < 0)) return status;
    status = createCudaBackend(spec_, weights_, cuda, &backend_);
  }
  if (!status.ok()) return status;
  if (!backend_) return {StatusCode::internal, "the backend of " + device + " did not appear"};
  packedBytes_ = backend_->packedBytes();
  weights_.reset();
  return {};
}

template <typename Real, typename Compute>
Status Model::guarded(Request<Real>* request, FeedDefaults* defaults, const CancelFlag& cancel, Compute compute) const {
  const DefaultFloatMode mode;  // runSync computes on a thread of the caller's
  try {
    if (cancel.load(std::memory_order_relaxed)) return {StatusCode::aborted, "aborted"};
    Status status = resolve(spec_, request, defaults);
    if (status.ok() && rejectNonFinite_) status = refuseNonFiniteInput(spec_, *request);
    std::vector<Real> logits;
    const bool lent = status.ok() && rejectNonFinite_ && request->probabilities && !request->logits;
    if (lent) {
      const int64_t rows = spec_.readout == Readout::steps ? request->feed.steps : 1;
      logits.resize(static_cast<size_t>(request->batch * rows * spec_.labels));
      request->logits = logits.data();
    }
    if (status.ok()) status = compute();
    if (status.ok() && rejectNonFinite_) status = refuseNonFiniteResult(spec_, *request);
    if (lent) request->logits = nullptr;
    return status;
  } catch (const std::bad_alloc&) {
    return {StatusCode::memory, "the run's buffers could not be allocated"};
  } catch (const std::exception& error) {
    return {StatusCode::internal, error.what()};
  }
}

Status Model::run(Request<float>* request, uint32_t rewrites, FeedDefaults* defaults, const CancelFlag& cancel) const {
  if (!backend_) return {StatusCode::internal, "the reference takes float64"};
  return guarded(request, defaults, cancel,
                 [&] { return backend_->run(*request, planOf(rewrites, precision_), cancel); });
}

Status Model::run(Request<double>* request, uint32_t, FeedDefaults* defaults, const CancelFlag& cancel) const {
  if (backend_) return {StatusCode::internal, "only the reference takes float64"};
  return guarded(request, defaults, cancel, [&] { return runReference(spec_, *weights_, *request, cancel); });
}

}  // namespace hpformer
