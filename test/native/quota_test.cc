// A container's CPU quota, of either version of control groups: the cases of test/unit/cores.test.ts, as files.
#include "binding/cpu/quota.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>

#include "check.h"

using hpformer::cpuQuota;

namespace {

using Files = std::map<std::string, std::string>;

// What a machine with these files answers.
double quotaOf(const Files& files) {
  const std::string folder = "hpformer-quota-" + std::to_string(std::random_device{}());
  const std::string name = (std::filesystem::temp_directory_path() / folder).string();
  std::filesystem::create_directories(name);
  for (const auto& [path, text] : files) {
    std::filesystem::create_directories(std::filesystem::path(name + path).parent_path());
    std::ofstream(name + path) << text;
  }
  const double quota = cpuQuota(name.c_str());
  std::filesystem::remove_all(name);
  return quota;
}

Files with(Files files, const std::string& path, const std::string& text) {
  files[path] = text;
  return files;
}

void second() {
  for (const char* group : {"/", "/system.slice/docker-1.scope", "/kubepods/pod 1/c:2"})
    CHECK(quotaOf({{"/proc/self/cgroup", "0::" + std::string(group) + "\n"},
                   {"/sys/fs/cgroup/cpu.max", "150000 100000\n"}}) == 1.5);
  const Files nested = {{"/proc/self/cgroup", "0::/a/b/c\n"},
                        {"/sys/fs/cgroup/a/cpu.max", "300000 100000"},
                        {"/sys/fs/cgroup/a/b/cpu.max", "max 100000"},
                        {"/sys/fs/cgroup/a/b/c/cpu.max", "50000 10000"},
                        {"/sys/fs/cgroup/a/b/c/d/cpu.max", "1000 100000"}};
  CHECK(quotaOf(nested) == 3);
  CHECK(quotaOf(with(nested, "/sys/fs/cgroup/a/b/c/cpu.max", "5000 10000")) == 0.5);
}

void first() {
  const std::string groups = "3:cpuset:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n";
  for (const std::string mount : {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"})
    for (const std::string group : {"", "/docker", "/docker/1"})
      CHECK(quotaOf({{"/proc/self/cgroup", groups},
                     {mount + group + "/cpu.cfs_quota_us", "250000\n"},
                     {mount + group + "/cpu.cfs_period_us", "100000\n"}}) == 2.5);
  CHECK(quotaOf({{"/proc/self/cgroup", groups},
                 {"/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "1"},
                 {"/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "1"}}) == 0);
}

void both() {
  const Files files = {{"/proc/self/cgroup", "2:cpu:/\n0::/\n"},
                       {"/sys/fs/cgroup/unified/cpu.max", "700000 100000"},
                       {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000"},
                       {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"}};
  CHECK(quotaOf(files) == 4);
  CHECK(quotaOf(with(files, "/sys/fs/cgroup/unified/cpu.max", "200000 100000")) == 2);
}

void none() {
  for (const char* text : {"max 100000\n", "", "0 100000", "-1 100000", "100000", "100000 0", "a b"})
    CHECK(quotaOf({{"/proc/self/cgroup", "0::/\n"}, {"/sys/fs/cgroup/cpu.max", text}}) == 0);
  CHECK(quotaOf({}) == 0);
  CHECK(quotaOf({{"/proc/self/cgroup", "nonsense\n\n"}}) == 0);
  CHECK(quotaOf({{"/proc/self/cgroup", "0::/" + std::string(9000, 'x') + "\n"}}) == 0);
  CHECK(quotaOf({{"/proc/self/cgroup", "1:cpu:/\n"},
                 {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"},
                 {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"}}) == 0);
  CHECK(cpuQuota(std::string(5000, 'x').c_str()) == 0);
}

}  // namespace

int main() {
  second();
  first();
  both();
  none();
  return hpformer::test::result();
}
