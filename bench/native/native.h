// Shared by the probes: what a ceiling is, and what a kernel's case offers.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "binding/cpu/kernels.h"

namespace hpformer::native {

// Multiply-add peak of one ISA level in GFLOP/s: independent chains in registers, `threads` at once, for about `ms`.
double fmaPeak(const std::string& isa, int threads, double ms);
// Bytes read and written per second by memcpy over buffers of `bytes` each, in GB/s.
double copyBandwidth(int64_t bytes, int threads, double ms);
// bf16 tile multiply peak of one core in GFLOP/s; 0 where the processor or its operating system has no AMX.
double amxPeak(double ms);

// What a kernel's operations stand beside: float32 multiply-adds, bfloat16 tiles, nothing (16-bit integers).
enum class Peak { multiplyAdd, tiles, none };

// One kernel on one problem. `call(slot)` runs it on one of `slots` copies of its data, so that caches rotate.
struct Case {
  std::string name;
  double flops = 0, bytes = 0;  // of one call; bytes: operands once in, results once out
  int slots = 8;
  std::function<void(int)> call;
  std::function<double()> error;  // largest relative difference from plain double loops, after call(0)
  double bound = 1e-5;
  Peak peak = Peak::multiplyAdd;
};

// Those of the level's cases whose names `wanted` takes.
std::vector<Case> casesOf(const Kernels& kernels, const std::function<bool(const std::string&)>& wanted);

// Vector instructions of a level per nanosecond on one core, from independent chains in registers: multiply-adds
// (multiplications where the level has none), additions, and eight of the one with six of the other.
enum class VectorLoop { multiply, add, both };
double vectorRate(const std::string& isa, VectorLoop kind, double ms);

// One sequence through a whole model on one thread.
class Stack {
 public:
  virtual ~Stack() = default;
  virtual bool run() const = 0;      // false where it failed
  virtual double error() const = 0;  // largest difference of the logits from the double-precision reference
  const std::string& name() const { return name_; }
  int64_t steps() const { return steps_; }

 protected:
  std::string name_;
  int64_t steps_ = 0;
};

std::unique_ptr<Stack> makeStack(const std::string& name);
int stacks(int rounds, const std::vector<std::string>& names);
int countStack(const std::string& name);

}  // namespace hpformer::native
