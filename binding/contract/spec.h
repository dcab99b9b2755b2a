// The validated model configuration as plain data: src/config proves it, everything native trusts it.
// Enumerator order is the order of the numbers that src/native/spec.ts sends.
#pragma once
#include <cstdint>
#include <vector>

namespace hpformer {

enum class EmbeddingKind : int32_t { features, tokens, scalar };
enum class PositionKind : int32_t { none, interleaved, halves, learned };
enum class Activation : int32_t { linear, relu, silu, gelu, geluTanh };
enum class NormKind : int32_t { layernorm, batchnorm, scalenorm, rmsnorm };
enum class SegmentRule : int32_t { upstream, paper };
enum class Pooling : int32_t { mean, max };
enum class Over : int32_t { padded, valid };
enum class Readout : int32_t { steps, step, mean };
enum class Link : int32_t { none, sigmoid, softmax };

struct HeadLayer {
  int64_t size = 0;
  Activation activation = Activation::linear;
};

struct Spec {
  EmbeddingKind embedding = EmbeddingKind::features;
  int64_t features = 0;    // features: width F of an input row
  int64_t vocabulary = 0;  // tokens: rows of the embedding table
  int64_t padding = -1;    // tokens: padding id, -1 when there is none
  PositionKind positions = PositionKind::none;
  bool scaleInput = false;  // sinusoidal halves/interleaved: multiply the embedding by sqrt(hidden) before positions
  int64_t maximum = 0;      // learned: usable positions
  bool embeddingNorm = false;
  int64_t hidden = 0, heads = 0, layers = 0;
  bool tiedLayers = false;
  Activation activation = Activation::relu;
  NormKind norm = NormKind::layernorm;
  SegmentRule rule = SegmentRule::upstream;
  int64_t times = 1;  // multiple k of the number of segments
  Pooling pooling = Pooling::mean;
  int64_t segmentSteps = 0;  // config.segments.steps; 0 when null
  Over over = Over::padded;
  Readout readout = Readout::step;
  int64_t sequences = 1;
  std::vector<HeadLayer> headLayers;
  int64_t labels = 1;
  bool headBias = true;
  Link link = Link::sigmoid;

  int64_t headWidth() const { return hidden / heads; }
  int64_t headInput() const { return hidden * sequences; }
};

inline constexpr double kNormEpsilon = 1e-5;

}  // namespace hpformer
