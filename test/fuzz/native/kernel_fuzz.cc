// libFuzzer: `kernels.*` with any name, any sizes (the edges of integers among them) and arrays of any length. Every
// call is a result or a status, and only what the arrays hold is touched.
#include <string>
#include <vector>

#include "binding/model/kernels.h"
#include "bytes.h"

using namespace hpformer;
using hpformer::fuzz::Bytes;

namespace {

struct Shape {
  const char* name;
  std::vector<const char*> parameters, inputs, outputs;
};

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {"embed",
       {"batch", "steps", "hidden", "kind", "size", "padding", "positions", "scaleInput", "maximum"},
       {"x", "weight", "bias", "positions", "normWeight", "normBias"},
       {"out"}},
      {"segmentPool", {"batch", "steps", "hidden", "segments", "length", "pooling"}, {"x"}, {"out"}},
      {"extraSegmentAttention", {"batch", "segments", "hidden"}, {"x"}, {"out", "weights"}},
      {"intraSegmentAttention", {"batch", "steps", "hidden", "segments", "length"}, {"extra", "x"}, {"out", "weights"}},
      {"fusion", {"batch", "segments", "hidden"}, {"extra", "intra", "weight", "bias"}, {"out"}},
      {"tdhp", {"batch", "steps", "hidden", "segments", "length", "pooling"}, {"x", "weight", "bias"}, {"out"}},
      {"keyAttention", {"batch", "steps", "hidden", "segments", "heads"}, {"x", "keys"}, {"out", "weights"}},
      {"norm", {"rows", "hidden", "norm"}, {"x", "weight", "bias", "mean", "variance"}, {"out"}},
      {"dense", {"rows", "inputs", "outputs", "activation"}, {"x", "weight", "bias"}, {"out"}},
      {"layer",
       {"batch", "steps", "hidden", "segments", "heads", "activation", "norm"},
       {"x", "keys", "output", "feedForward", "feedForwardBias", "norm1Weight", "norm1Bias", "norm2Weight",
        "norm2Bias"},
       {"out"}},
      {"head", {"rows", "inputs", "labels", "link"}, {"x", "weight", "bias"}, {"logits", "probabilities"}},
  };
  return all;
}

// How many numbers an array would hold if it were what the parameters say: most arrays get that, the rest something
// else.
int64_t product(const std::map<std::string, double>& p, std::initializer_list<const char*> names) {
  double n = 1;
  for (const char* name : names) n *= p.count(name) ? p.at(name) : 1;
  return n >= 0 && n <= 4096 ? static_cast<int64_t>(n) : 0;
}

int64_t wanted(const std::map<std::string, double>& p, const std::string& kernel, const std::string& array) {
  if (array == "x" && p.count("inputs")) return product(p, {"rows", "inputs"});
  if (array == "x" && kernel == "norm") return product(p, {"rows", "hidden"});
  if (array == "x" && kernel == "extraSegmentAttention") return product(p, {"batch", "segments", "hidden"});
  if (array == "x" && kernel == "embed") return product(p, {"batch", "steps", "size"});
  if (array == "x") return product(p, {"batch", "steps", "hidden"});
  if (array == "extra" || array == "intra" || array == "keys") return product(p, {"batch", "segments", "hidden"});
  if (array == "weight" && (kernel == "fusion" || kernel == "tdhp")) return 2 * product(p, {"hidden", "hidden"});
  if (array == "weight" && kernel == "dense") return product(p, {"outputs", "inputs"});
  if (array == "weight" && kernel == "head") return product(p, {"labels", "inputs"});
  if (array == "weight" && kernel == "embed") return product(p, {"hidden", "size"});
  if (array == "output" || array == "feedForward") return product(p, {"hidden", "hidden"});
  if (array == "logits" || array == "probabilities") return product(p, {"rows", "labels"});
  if (array == "out" && kernel == "dense") return product(p, {"rows", "outputs"});
  if (array == "out" && kernel == "norm") return product(p, {"rows", "hidden"});
  if (array == "out" && (kernel == "embed" || kernel == "keyAttention" || kernel == "layer"))
    return product(p, {"batch", "steps", "hidden"});
  if (array == "out") return product(p, {"batch", "segments", "hidden"});
  if (array == "weights" && kernel == "keyAttention") return product(p, {"batch", "steps", "heads", "segments"});
  if (array == "weights" && kernel == "intraSegmentAttention") return product(p, {"batch", "steps"});
  if (array == "weights") return product(p, {"batch", "segments", "segments"});
  if (array == "bias" && kernel == "dense") return product(p, {"outputs"});
  if (array == "bias" && kernel == "head") return product(p, {"labels"});
  return product(p, {"hidden"});
}

template <typename Real>
void call(Bytes& b) {
  const Shape& shape = shapes()[static_cast<size_t>(b.in(0, static_cast<int64_t>(shapes().size()) - 1))];
  KernelCall<Real> call;
  call.name = b.byte() == 255 ? "none" : shape.name;
  std::vector<std::vector<Real>> arrays;
  std::vector<int32_t> tokens;
  arrays.reserve(shape.inputs.size() + shape.outputs.size());
  for (const char* name : shape.parameters) {
    if (b.byte() != 255) call.parameters[name] = static_cast<double>(b.size(12));
  }
  const auto count = [&](const char* name) {
    const uint8_t kind = b.byte();
    return kind >= 248 ? b.in(0, 200) : wanted(call.parameters, shape.name, name);
  };
  for (const char* name : shape.inputs) {
    if (b.byte() == 255) continue;
    arrays.push_back(b.reals<Real>(count(name)));
    call.inputs[name] = {arrays.back().data(), static_cast<int64_t>(arrays.back().size())};
  }
  if (b.byte() > 200) {
    const int64_t ids = product(call.parameters, {"batch", "steps"});
    for (int64_t i = 0; i < ids; ++i) tokens.push_back(b.id(12));
    call.integers["tokens"] = {tokens.data(), ids};
    call.inputs.erase("x");
  }
  for (const char* name : shape.outputs) {
    if (b.byte() == 255) continue;
    arrays.push_back(std::vector<Real>(static_cast<size_t>(count(name))));
    call.outputs[name] = {arrays.back().data(), static_cast<int64_t>(arrays.back().size())};
  }
  const Status status = runKernel(call);
  if (!status.ok() && status.message.empty()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes b(data, size);
  if (b.chance())
    call<float>(b);
  else
    call<double>(b);
  return 0;
}
