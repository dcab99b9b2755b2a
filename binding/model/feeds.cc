#include "feeds.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "binding/contract/positions.h"
#include "binding/contract/segments.h"
#include "text.h"

namespace hpformer {
namespace {

const char* inputName(const Spec& spec, bool second) {
  switch (spec.embedding) {
    case EmbeddingKind::features: return "features";
    case EmbeddingKind::tokens: return second ? "tokens2" : "tokens";
    case EmbeddingKind::scalar: break;
  }
  return second ? "values2" : "values";
}

std::string at(int64_t sequence) { return " at sequence " + std::to_string(sequence); }

std::string at(int64_t sequence, int64_t step) { return at(sequence) + ", step " + std::to_string(step); }

// 'padded': the mean's divisor, so the number of tokens that are not padding. 'valid': where the sequence ends.
int64_t defaultLength(const Spec& spec, const int32_t* tokens, int64_t steps) {
  if (!tokens) return steps;
  int64_t count = 0, end = 0;
  for (int64_t t = 0; t < steps; ++t) {
    if (isPadding(spec, tokens, t)) continue;
    ++count;
    end = t + 1;
  }
  return spec.over == Over::valid ? end : count;
}

template <typename Real>
Status resolveLengths(const Spec& spec, int64_t batch, bool second, Feed<Real>* feed, std::vector<int32_t>* storage) {
  const bool valid = spec.over == Over::valid;
  const std::string name = second ? "lengths2" : "lengths";
  if (feed->lengths) {
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = feed->lengths[b];
      if (length >= 1 && (!valid || length <= feed->steps)) continue;
      return {StatusCode::range, name + ": expected " + (valid ? "1 to " + std::to_string(feed->steps) : "at least 1") +
                                     ", got " + std::to_string(length) + at(b)};
    }
    return {};
  }
  storage->resize(static_cast<size_t>(batch));
  for (int64_t b = 0; b < batch; ++b) {
    int64_t length = defaultLength(spec, feed->tokens ? feed->tokens + b * feed->steps : nullptr, feed->steps);
    if (length < 1) {
      // Only here would the divisor, or the sequence itself, be empty; elsewhere 'padded' never looks at the length.
      if (valid || spec.readout == Readout::mean) {
        return {StatusCode::range, std::string(inputName(spec, second)) +
                                       ": expected at least one token that is not padding, got none" + at(b)};
      }
      length = 1;
    }
    (*storage)[b] = static_cast<int32_t>(length);
  }
  feed->lengths = storage->data();
  return {};
}

template <typename Real>
Status checkSequences(const Spec& spec, int64_t batch, bool second, const Feed<Real>& feed,
                      const SequenceOutputs<Real>& out) {
  const std::string name = inputName(spec, second);
  int64_t most = 0, lastSteps = -1;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t steps = spec.over == Over::valid ? feed.lengths[b] : feed.steps;
    if (steps != lastSteps) {
      if (spec.positions == PositionKind::learned && steps > spec.maximum) {
        return {StatusCode::shape, name + ": expected at most " + std::to_string(spec.maximum) +
                                       " steps (learned positions), got " + std::to_string(steps) + at(b)};
      }
      Segments segments;
      Status status = segmentsOf(spec, steps, &segments);
      if (!status.ok()) return {status.code, name + ": " + status.message + (batch > 1 ? at(b) : "")};
      most = std::max(most, segments.count);
      lastSteps = steps;
    }
    if (!feed.tokens) continue;
    for (int64_t t = 0; t < steps; ++t) {
      const int64_t token = feed.tokens[b * feed.steps + t];
      if (token >= 0 && token < spec.vocabulary) continue;
      return {StatusCode::range, name + ": expected ids from 0 to " + std::to_string(spec.vocabulary - 1) + ", got " +
                                     std::to_string(token) + at(b, t)};
    }
  }
  const bool needed =
      out.keys || out.attention || out.segmentAttention || out.segmentPool || out.extraSegment || out.intraSegment;
  if (needed && out.segmentsMax < most) {
    return {StatusCode::internal, name + ": outputs have room for " + std::to_string(out.segmentsMax) +
                                      " segments, the batch has " + std::to_string(most)};
  }
  return {};
}

template <typename Real>
Status resolveReadout(const Spec& spec, Request<Real>* request, std::vector<int32_t>* storage) {
  if (spec.readout != Readout::step) {
    request->step = nullptr;
    request->readoutWeights = nullptr;
    return {};
  }
  const Feed<Real>& feed = request->feed;
  const bool valid = spec.over == Over::valid;
  if (const Real* weights = request->readoutWeights) {
    for (int64_t b = 0; b < request->batch; ++b) {
      const int64_t end = valid ? feed.lengths[b] : feed.steps;
      for (int64_t t = 0; t < feed.steps; ++t) {
        const double weight = weights[b * feed.steps + t];
        if (!std::isfinite(weight)) {
          return {StatusCode::input, "readoutWeights: expected finite values, got " + numberText(weight) + at(b, t)};
        }
        if (t >= end && weight != 0) {
          return {StatusCode::range, "readoutWeights: expected 0 beyond the sequence's length " + std::to_string(end) +
                                         ", got " + numberText(weight) + at(b, t)};
        }
      }
    }
    return {};
  }
  if (!request->step) storage->resize(static_cast<size_t>(request->batch));
  for (int64_t b = 0; b < request->batch; ++b) {
    const int64_t end = valid ? feed.lengths[b] : feed.steps;
    if (!request->step) {
      (*storage)[b] = static_cast<int32_t>(end - 1);
    } else if (request->step[b] < 0 || request->step[b] >= end) {
      return {StatusCode::range,
              "step: expected 0 to " + std::to_string(end - 1) + ", got " + std::to_string(request->step[b]) + at(b)};
    }
  }
  if (!request->step) request->step = storage->data();
  return {};
}

template <typename Real>
Status finiteInput(const Spec& spec, int64_t batch, bool second, const Feed<Real>& feed) {
  const Real* x = feed.features ? feed.features : feed.values;
  if (!x) return {};
  const int64_t width = feed.features ? spec.features : 1;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t steps = spec.over == Over::valid ? feed.lengths[b] : feed.steps;
    const Real* row = x + b * feed.steps * width;
    for (int64_t i = 0; i < steps * width; ++i) {
      if (std::isfinite(row[i])) continue;
      return {StatusCode::input, std::string(inputName(spec, second)) + ": expected finite values, got " +
                                     numberText(row[i]) + at(b, i / width) +
                                     (feed.features ? ", feature " + std::to_string(i % width) : "")};
    }
  }
  return {};
}

}  // namespace

template <typename Real>
Status resolve(const Spec& spec, Request<Real>* request, FeedDefaults* defaults) {
  const int64_t batch = request->batch;
  if (batch < 1) return {StatusCode::shape, "expected a batch of at least 1, got " + std::to_string(batch)};
  for (int second = 0; second < spec.sequences; ++second) {
    Feed<Real>& feed = second ? request->second : request->feed;
    if (feed.steps < 1) {
      return {StatusCode::shape,
              std::string(inputName(spec, second)) + ": expected at least 1 step, got " + std::to_string(feed.steps)};
    }
    Status status = resolveLengths(spec, batch, second, &feed, second ? &defaults->secondLengths : &defaults->lengths);
    if (!status.ok()) return status;
    status = checkSequences(spec, batch, second, feed, second ? request->outSecond : request->out);
    if (!status.ok()) return status;
  }
  return resolveReadout(spec, request, &defaults->step);
}

template <typename Real>
Status refuseNonFiniteInput(const Spec& spec, const Request<Real>& request) {
  Status status = finiteInput(spec, request.batch, false, request.feed);
  if (status.ok() && spec.sequences == 2) status = finiteInput(spec, request.batch, true, request.second);
  return status;
}

template <typename Real>
Status refuseNonFiniteResult(const Spec& spec, const Request<Real>& request) {
  // `rows` of `width` numbers for each sequence.
  const auto check = [&](const std::string& name, const Real* x, int64_t rows, const char* row, int64_t width,
                         const char* column) -> Status {
    for (int64_t i = 0; x && i < request.batch * rows * width; ++i) {
      if (std::isfinite(x[i])) continue;
      return {StatusCode::input,
              name + ": expected finite values, got " + numberText(x[i]) + at(i / (rows * width)) +
                  (rows > 1 ? std::string(", ") + row + " " + std::to_string(i / width % rows) : "") + ", " + column +
                  " " + std::to_string(i % width) + ", from finite inputs"};
    }
    return {};
  };
  for (int second = 0; second < spec.sequences; ++second) {
    const SequenceOutputs<Real>& out = second ? request.outSecond : request.out;
    const std::string prefix = second ? "second." : "";
    Status status = check(prefix + "keys", out.keys, out.segmentsMax, "segment", spec.hidden, "channel");
    if (status.ok()) status = check(prefix + "pooled", out.pooled, 1, "", spec.hidden, "channel");
    if (!status.ok()) return status;
  }
  const int64_t rows = spec.readout == Readout::steps ? request.feed.steps : 1;
  return check("logits", request.logits, rows, "step", spec.labels, "label");
}

template Status resolve(const Spec&, Request<float>*, FeedDefaults*);
template Status resolve(const Spec&, Request<double>*, FeedDefaults*);
template Status refuseNonFiniteInput(const Spec&, const Request<float>&);
template Status refuseNonFiniteInput(const Spec&, const Request<double>&);
template Status refuseNonFiniteResult(const Spec&, const Request<float>&);
template Status refuseNonFiniteResult(const Spec&, const Request<double>&);

}  // namespace hpformer
