// Many segments, S = 33, 48 and 64, through the fused kernels against the double-precision reference: rows of the score
// matrix beyond two groups of 16 keys, the last of them partly filled. Exits with 77 where there is no driver library.
#include <atomic>

#include "cuda_cases.h"
#include "cuda_watch.h"

using namespace hpformer;
using namespace hpformer::testing;

namespace {

// Steps and a multiplier that make exactly `count` segments of two steps or more, with appended zero rows where asked.
bool findSteps(Spec* spec, int64_t count, bool appended, int64_t* steps) {
  for (*steps = count; *steps <= 4 * count; ++*steps) {
    for (spec->times = 2; spec->times <= 64; ++spec->times) {
      Segments s;
      if (segmentsOf(*spec, *steps, &s).ok() && s.count == count && s.length > 1 && (s.padding > 0) == appended)
        return true;
    }
  }
  return false;
}

void compare(int64_t hidden, int64_t count, Readout readout) {
  Spec spec;
  spec.features = 12;
  spec.positions = PositionKind::interleaved;
  spec.hidden = hidden;
  spec.heads = 8;
  spec.layers = 1;
  spec.activation = Activation::relu;
  spec.readout = readout;
  spec.pooling = count == 48 ? Pooling::max : Pooling::mean;
  spec.labels = 3;
  spec.link = Link::softmax;
  int64_t steps = 0;
  const std::string what = "hidden " + std::to_string(hidden) + ", S " + std::to_string(count) + ", readout " +
                           std::to_string(static_cast<int>(readout));
  if (!findSteps(&spec, count, count != 48, &steps)) return expect(false, what + ": no such length");
  Random r(41);
  const auto weights = std::make_shared<const Weights>(randomWeights(spec, r));
  const Batch batch = randomBatch(spec, r, 2, steps, 0);
  Run<double> want(spec, batch, false, false);
  Status s = runReference(spec, *weights, want.request, kNever);
  expect(s.ok() && want.first.segments[0] == count, what + ": reference: " + s.message);
  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    Run<float> got(spec, batch, false, false);
    std::unique_ptr<Backend> backend;
    Plan plan;
    plan.precision = precision;
    s = load(spec, weights, precision, &backend);
    std::atomic<int> launches{0};
    watch::before = [&](const char* name, watch::cuda::CUstream) {
      launches += std::strcmp(name, "launchKernel") == 0;
      return watch::cuda::kSuccess;
    };
    if (s.ok()) s = backend->run(got.request, plan, kNever);
    watch::before = {};
    expect(s.ok(), what + ": " + s.message);
    expect(launches == 1, what + ": " + std::to_string(launches) + " launches");
    expect(got.first.segments == want.first.segments, what + ": other segments");
    if (precision == Precision::bfloat16) {
      for (const auto& [name, out, reference] : {std::tuple{"logits", &got.logits, &want.logits},
                                                 {"pooled", &got.first.pooled, &want.first.pooled},
                                                 {"keys", &got.first.keys, &want.first.keys}}) {
        double scale = 0;
        const double error = rootMeanSquare(*out, *reference, &scale);
        expect(error <= 1e-2 * std::max(1.0, scale), what + ": bfloat16 " + name + " " + std::to_string(error));
      }
      continue;
    }
    for (const auto& [name, out, reference] : {std::tuple{"logits", &got.logits, &want.logits},
                                               {"probabilities", &got.probabilities, &want.probabilities},
                                               {"pooled", &got.first.pooled, &want.first.pooled},
                                               {"keys", &got.first.keys, &want.first.keys}}) {
      const double error = worst(*out, *reference);
      expect(error <= 1, what + ": " + name + " " + std::to_string(error) + " times the bound");
    }
  }
}

}  // namespace

int main() {
  if (const int skip = skipped()) return skip;
  watch::start();
  for (const int64_t hidden : {64, 128}) {
    for (const int64_t count : {33, 48, 64}) {
      for (const Readout readout : {Readout::step, Readout::steps, Readout::mean}) compare(hidden, count, readout);
    }
  }
  watch::stop();
  return result();
}
