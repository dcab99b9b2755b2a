#include "quota.h"

#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace hpformer {
namespace {

constexpr int kPath = 4096;  // PATH_MAX: no path that can be opened is longer

// Allocates nothing but what fopen does, so that memory that runs out is no other answer later.
bool readText(const char* folder, const char* file, char* out, int size) {
  char path[kPath + 64];
  const int length = std::snprintf(path, sizeof path, "%s%s", folder, file);
  if (length < 0 || length >= static_cast<int>(sizeof path)) return false;
  std::FILE* const f = std::fopen(path, "r");
  if (!f) return false;
  const bool got = std::fgets(out, size, f) != nullptr;
  std::fclose(f);
  return got;
}

double quotaAt(const char* folder, int version) {
  char text[128], more[128];
  double quota = 0, period = 0;
  if (version == 2) {
    if (!readText(folder, "/cpu.max", text, sizeof text) || std::sscanf(text, "%lf %lf", &quota, &period) != 2)
      return 0;
  } else {
    if (!readText(folder, "/cpu.cfs_quota_us", text, sizeof text) || std::sscanf(text, "%lf", &quota) != 1) return 0;
    if (!readText(folder, "/cpu.cfs_period_us", more, sizeof more) || std::sscanf(more, "%lf", &period) != 1) return 0;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

void lessen(double* least, double quota) {
  if (quota > 0 && (*least == 0 || quota < *least)) *least = quota;
}

// The quotas of a group and of all above it, below one mount.
void walk(const char* root, const char* mount, const char* group, int version, double* least) {
  char folder[kPath];
  const int base = std::snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s", root, mount);
  if (base < 0 || base >= kPath) return;
  const int length = std::snprintf(folder + base, sizeof folder - base, "%s", group);
  if (length < 0 || length >= kPath - base) return;
  for (int end = base + length;;) {
    while (end > base && folder[end - 1] == '/') --end;
    folder[end] = 0;
    lessen(least, quotaAt(folder, version));
    if (end == base) return;
    while (end > base && folder[end - 1] != '/') --end;
  }
}

bool namesCpu(const char* controllers) {
  for (const char* at = controllers;;) {
    const size_t length = std::strcspn(at, ",");
    if (length == 3 && std::strncmp(at, "cpu", 3) == 0) return true;
    if (!at[length]) return false;
    at += length + 1;
  }
}

}  // namespace

double cpuQuota(const char* root) {
  char path[kPath];
  const int length = std::snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  if (length < 0 || length >= kPath) return 0;
  std::FILE* const groups = std::fopen(path, "r");
  if (!groups) return 0;
  double least = 0;
  char line[kPath];
  while (std::fgets(line, sizeof line, groups)) {
    line[std::strcspn(line, "\n")] = 0;
    char* const controllers = std::strchr(line, ':');
    char* const group = controllers ? std::strchr(controllers + 1, ':') : nullptr;
    if (!group) continue;
    *group = 0;
    const char* const names = controllers + 1;
    if (!*names) {
      for (const char* mount : {"", "/unified"}) walk(root, mount, group + 1, 2, &least);
    } else if (namesCpu(names)) {
      walk(root, "/cpu", group + 1, 1, &least);
      char own[256];
      const int wrote = std::snprintf(own, sizeof own, "/%s", names);
      if (wrote > 0 && wrote < static_cast<int>(sizeof own)) walk(root, own, group + 1, 1, &least);
    }
  }
  std::fclose(groups);
  return least;
}

}  // namespace hpformer
