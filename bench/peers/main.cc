// hpformer_attention --steps N [--systems a,b] [--layers 4] [--hidden 128] [--heads 8] [--threads 2] [--rounds 5]
//                    [--axes ROWSxCOLUMNS] [--broken] : checks every encoder against its double-precision formula, all
// layers at the very length that is timed, then times them in turn, and prints { "rows": [...] }. Beyond 4,096 steps
// the check is made at 4,096, and `checked` is false; `checkedSteps` is the length at which it held, 0 where it did
// not. `--broken` gives each a defect. `--memory SYSTEM` is the child that measures one encoder's memory.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "encoder.h"

namespace hpformer::peers {
namespace {

struct Options {
  EncoderSize size;
  std::vector<std::string> systems = systemNames();
  int threads = 2, rounds = 5;
  std::string memory;
  bool broken = false, measureMemory = true;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

bool parse(int argc, char** argv, Options* o) {
  o->size.size = {1024, 128, 8, 0, 0};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--broken")
      o->broken = true;
    else if (name == "--no-memory")
      o->measureMemory = false;
    else if (i + 1 >= argc)
      return false;
    else {
      const std::string value = argv[++i];
      const int64_t number = std::atoll(value.c_str());
      if (name == "--steps")
        o->size.size.steps = number;
      else if (name == "--hidden")
        o->size.size.hidden = number;
      else if (name == "--heads")
        o->size.size.heads = number;
      else if (name == "--layers")
        o->size.layers = number;
      else if (name == "--threads")
        o->threads = static_cast<int>(number);
      else if (name == "--rounds")
        o->rounds = static_cast<int>(number);
      else if (name == "--systems")
        o->systems = split(value);
      else if (name == "--memory")
        o->memory = value;
      else if (name == "--axes") {
        const std::size_t x = value.find('x');
        if (x == std::string::npos) return false;
        o->size.size.rows = number;
        o->size.size.columns = std::atoll(value.c_str() + x + 1);
        o->size.size.steps = o->size.size.rows * o->size.size.columns;
      } else
        return false;
    }
  }
  const Size& s = o->size.size;
  return s.steps > 0 && s.hidden > 0 && s.heads > 1 && s.hidden % s.heads == 0 && s.width() % 8 == 0 &&
         s.hidden % 16 == 0 && o->size.layers > 0 && o->threads > 0 && o->rounds > 0;
}

std::vector<float> input(const EncoderSize& size) {
  std::mt19937 random(7);
  return gaussian(size.size.steps * size.features, 1.0f, random);
}

// The references take time quadratic in the steps.
EncoderSize checkedSize(EncoderSize size) {
  constexpr int64_t kMost = 4096;
  Size& s = size.size;
  if (s.steps <= kMost) return size;
  s.steps = kMost;
  if (s.rows > 0) {
    s.columns = std::min(s.columns, kMost);
    s.rows = std::max<int64_t>(1, kMost / s.columns);
    s.steps = s.rows * s.columns;
  }
  return size;
}

int64_t statusKilobytes(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) return std::atoll(line.c_str() + std::strlen(key) + 1);
  return -1;
}

// Growth of the peak resident set over the loaded encoder during its first run.
int memoryChild(const Options& o) {
  const std::unique_ptr<System> system = makeSystem(o.memory, o.size);
  if (!system) return 1;
  const std::vector<float> rows = input(o.size);
  std::vector<float> pooled(static_cast<std::size_t>(o.size.size.hidden));
  parallelFor(o.threads, o.threads, [](int64_t) {});  // thread stacks are not the encoder's
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
  const int64_t before = statusKilobytes("VmRSS:");
  system->run(rows.data(), pooled.data(), o.threads);
  std::printf("%lld\n", static_cast<long long>((statusKilobytes("VmHWM:") - before) * 1024));
  return 0;
}

int64_t measureMemory(const char* program, const std::string& system, const Options& o) {
  std::stringstream command;
  command << "'" << program << "' --memory " << system << " --steps " << o.size.size.steps << " --hidden "
          << o.size.size.hidden << " --heads " << o.size.size.heads << " --layers " << o.size.layers << " --threads "
          << o.threads;
  if (o.size.size.rows > 0) command << " --axes " << o.size.size.rows << "x" << o.size.size.columns;
  std::FILE* pipe = popen(command.str().c_str(), "r");
  if (!pipe) return -1;
  long long bytes = -1;
  const int read = std::fscanf(pipe, "%lld", &bytes);
  return pclose(pipe) == 0 && read == 1 ? bytes : -1;
}

double milliseconds(const System& system, const float* rows, float* pooled, int threads) {
  const auto start = std::chrono::steady_clock::now();
  system.run(rows, pooled, threads);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

int run(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, &o)) {
    std::fprintf(stderr, "hpformer_attention: bad options; hidden must be a multiple of 16, head width of 8\n");
    return 2;
  }
  if (!o.memory.empty()) return memoryChild(o);
  // The engine takes its threads from the environment by default; here they are the option's.
  setenv("HPFORMER_THREADS", std::to_string(o.threads).c_str(), 1);
  const EncoderSize sample = checkedSize(o.size);
  const bool whole = sample.size.steps == o.size.size.steps;
  std::vector<std::unique_ptr<System>> systems;
  std::vector<double> errors;
  for (const std::string& name : o.systems) {
    systems.push_back(makeSystem(name, o.size, o.broken));
    if (!systems.back()) {
      std::fprintf(stderr, "hpformer_attention: no system named %s\n", name.c_str());
      return 2;
    }
    const std::unique_ptr<System> shorter = whole ? nullptr : makeSystem(name, sample, o.broken);
    errors.push_back((whole ? systems.back() : shorter)->check(input(sample).data(), o.threads));
  }
  const std::vector<float> rows = input(o.size);
  std::vector<float> pooled(static_cast<std::size_t>(o.size.size.hidden));
  std::vector<std::vector<double>> times(systems.size());
  std::vector<double> total(systems.size(), 0.0);
  for (int round = -1; round < o.rounds; ++round)
    for (std::size_t i = 0; i < systems.size(); ++i) {
      if (total[i] > 4000 && !times[i].empty()) continue;  // slow ones need fewer
      const double ms = milliseconds(*systems[i], rows.data(), pooled.data(), o.threads);
      total[i] += ms;
      if (round >= 0 || ms > 2000) times[i].push_back(ms);
    }
  std::printf("{ \"rows\": [");
  bool good = true;
  for (std::size_t i = 0; i < systems.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const bool holds = errors[i] <= 2e-5;
    good = good && holds;
    const int64_t bytes = o.measureMemory ? measureMemory(argv[0], o.systems[i], o) : -1;
    std::printf(
        "%s\n  { \"system\": \"%s\", \"steps\": %lld, \"ms\": %.4f, \"low\": %.4f, \"high\": %.4f, \"bytes\": %lld, "
        "\"flops\": %.0f, "
        "\"checked\": %s, \"checkedSteps\": %lld, \"error\": %.2e, \"parametersPerLayer\": %lld, \"repetitions\": %zu "
        "}",
        i ? "," : "", o.systems[i].c_str(), static_cast<long long>(o.size.size.steps), times[i][times[i].size() / 2],
        times[i][times[i].size() / 4], times[i][times[i].size() * 3 / 4], static_cast<long long>(bytes),
        systems[i]->flops(), holds && whole ? "true" : "false", static_cast<long long>(holds ? sample.size.steps : 0),
        errors[i], static_cast<long long>(systems[i]->parametersPerLayer()), times[i].size());
  }
  std::printf("\n], \"isa\": \"%s\", \"threads\": %d, \"hidden\": %lld, \"heads\": %lld, \"layers\": %lld }\n",
              kernels().isa, o.threads, static_cast<long long>(o.size.size.hidden),
              static_cast<long long>(o.size.size.heads), static_cast<long long>(o.size.layers));
  return good ? 0 : 1;
}

}  // namespace
}  // namespace hpformer::peers

int main(int argc, char** argv) { return hpformer::peers::run(argc, argv); }
