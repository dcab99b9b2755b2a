// hpformer_native ceilings [MS]: machine ceilings as JSON
//
// hpformer_native kernels [MS] [ROUNDS] [NAME...]: the kernels of every ISA level, checked, then timed beside its
// level's ceiling
//
// hpformer_native amx [MS]: GFLOP/s of one core's bf16 tiles (0: none)
//
// hpformer_native count KERNEL TIMES: one kernel of the highest level TIMES times, for instruction counters
//
// hpformer_native stack [ROUNDS] [NAME...]: whole models on one thread at the level in use, beside loops of its vector
// instructions
//
// hpformer_native count-stack NAME: one run of one of them, for instruction counters
//
// hpformer_native identity: compiler and level as JSON; counts of two are compared only where both are the same
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "binding/cpu/backend.h"
#include "binding/cpu/detect.h"
#include "native.h"

// What callgrind collects (--toggle-collect): the calls alone, without the set-up of all cases.
extern "C" __attribute__((noinline)) void hpformer_counted(const hpformer::native::Case& item, int times) {
  for (int i = 0; i < times; ++i) item.call(0);
}

namespace hpformer::native {
namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

int ceilings(double ms) {
  std::printf("{ \"levels\": [");
  bool first = true;
  for (const Kernels* k : availableKernels()) {
    std::printf("%s{ \"isa\": \"%s\", \"fma1\": %.2f, \"fma2\": %.2f }", first ? "" : ", ", k->isa,
                fmaPeak(k->isa, 1, ms), fmaPeak(k->isa, 2, ms));
    first = false;
  }
  std::printf("], \"copy\": [");
  first = true;
  for (const int64_t bytes : {int64_t{16} << 10, int64_t{256} << 10, int64_t{64} << 20}) {
    std::printf("%s{ \"bytes\": %lld, \"gbs1\": %.2f, \"gbs2\": %.2f }", first ? "" : ", ",
                static_cast<long long>(bytes), copyBandwidth(bytes, 1, ms), copyBandwidth(bytes, 2, ms));
    first = false;
  }
  std::printf("], \"amx\": %.2f }\n", amxPeak(ms));
  return 0;
}

double timeOf(const Case& item, double ms) {
  using Clock = std::chrono::steady_clock;
  int64_t calls = 0;
  const auto start = Clock::now();
  double elapsed = 0;
  do {
    for (int i = 0; i < item.slots; ++i) item.call(i);
    calls += item.slots;
    elapsed = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  } while (elapsed < ms);
  return elapsed * 1e6 / static_cast<double>(calls);
}

// `HPFORMER_ISA` leaves only that level, which may be one that only test builds have.
std::vector<const Kernels*> levelsAsked() {
  if (std::getenv("HPFORMER_ISA")) return {&hpformer::kernels()};
  return availableKernels();
}

bool named(const std::vector<std::string>& parts, const std::string& name) {
  return parts.empty() || std::any_of(parts.begin(), parts.end(),
                                      [&](const std::string& part) { return name.find(part) != std::string::npos; });
}

// A number of the JSON output, or null where there is nothing to compare with.
std::string share(double part, double of) {
  if (!(of > 0)) return "null";
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", 100 * part / of);
  return text;
}

int kernels(double ms, int rounds, const std::vector<std::string>& names) {
  struct Result {
    std::vector<double> ns;
    double error = 0;
  };
  bool good = true, first = true;
  std::printf("{ \"rows\": [");
  for (const Kernels* k : levelsAsked()) {
    const std::vector<Case> cases = casesOf(*k, [&](const std::string& name) { return named(names, name); });
    std::vector<Result> results(cases.size());
    for (std::size_t i = 0; i < cases.size(); ++i) {
      cases[i].call(0);
      results[i].error = cases[i].error();
    }
    std::vector<double> peak, tiles;
    const double copy = copyBandwidth(16 << 10, 1, ms);
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < cases.size(); ++i) {
        if (cases[i].peak == Peak::tiles) {
          tiles.push_back(amxPeak(ms / 4));
        } else if (cases[i].peak == Peak::multiplyAdd) {
          peak.push_back(fmaPeak(k->isa, 1, ms / 4));
        }
        results[i].ns.push_back(timeOf(cases[i], ms));
      }
    }
    if (k->release) k->release();
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const double ns = median(results[i].ns), gflops = cases[i].flops / ns, gbs = cases[i].bytes / ns;
      const Peak kind = cases[i].peak;
      const double ceiling = kind == Peak::none ? 0 : median(kind == Peak::tiles ? tiles : peak);
      std::vector<double> sorted = results[i].ns;
      std::sort(sorted.begin(), sorted.end());
      const bool checked = results[i].error <= cases[i].bound;
      good = good && checked;
      std::printf(
          "%s\n  { \"kernel\": \"%s\", \"isa\": \"%s\", \"ns\": %.1f, \"low\": %.1f, \"high\": %.1f, \"gflops\": %.2f, "
          "\"percent\": %s, \"gbs\": %.2f, \"percentCopy\": %s, \"flops\": %.0f, \"bytes\": %.0f, "
          "\"ceiling\": %.2f, \"copy\": %.2f, \"checked\": %s, \"error\": %.1e }",
          first ? "" : ",", cases[i].name.c_str(), k->isa, ns, sorted[sorted.size() / 4], sorted[sorted.size() * 3 / 4],
          gflops, share(gflops, ceiling).c_str(), gbs, share(gbs, copy).c_str(), cases[i].flops, cases[i].bytes,
          ceiling, copy, checked ? "true" : "false", results[i].error);
      first = false;
    }
  }
  std::printf("\n] }\n");
  return good ? 0 : 1;
}

int identity() {
#if defined(__clang__)
  std::printf("{ \"compiler\": \"clang %d\", \"isa\": \"%s\" }\n", __clang_major__, hpformer::kernels().isa);
#elif defined(__GNUC__)
  std::printf("{ \"compiler\": \"gcc %d\", \"isa\": \"%s\" }\n", __GNUC__, hpformer::kernels().isa);
#else
  std::printf("{ \"compiler\": \"other\", \"isa\": \"%s\" }\n", hpformer::kernels().isa);
#endif
  return 0;
}

int count(const std::string& name, int times) {
  const bool list = name == "list";
  const std::vector<Case> cases =
      casesOf(hpformer::kernels(), [&](const std::string& other) { return list || other == name; });
  for (const Case& item : cases)
    if (list)
      std::printf("%s\n", item.name.c_str());
    else
      hpformer_counted(item, times);
  return cases.empty() ? 2 : 0;
}

}  // namespace
}  // namespace hpformer::native

int main(int argc, char** argv) {
  using namespace hpformer::native;
  const std::string task = argc > 1 ? argv[1] : "";
  const double number = argc > 2 ? std::atof(argv[2]) : 0;
  if (task == "ceilings") return ceilings(number > 0 ? number : 60);
  if (task == "kernels") {
    const std::vector<std::string> names(argv + std::min(argc, 4), argv + argc);
    return kernels(number > 0 ? number : 2, argc > 3 ? std::max(1, std::atoi(argv[3])) : 15, names);
  }
  if (task == "amx") {
    std::printf("%.2f\n", amxPeak(number > 0 ? number : 5));
    return 0;
  }
  if (task == "identity") return identity();
  if (task == "stack") {
    return stacks(number > 0 ? static_cast<int>(number) : 15, {argv + std::min(argc, 3), argv + argc});
  }
  if (task == "count-stack" && argc > 2) return countStack(argv[2]);
  if (task == "count" && argc > 3) return count(argv[2], std::atoi(argv[3]));
  std::fprintf(stderr, "usage: hpformer_native ceilings|kernels|amx|count|stack|count-stack|identity ...\n");
  return 2;
}
