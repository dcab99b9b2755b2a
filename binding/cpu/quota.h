// CPU time that control groups leave to this process.
#pragma once

namespace hpformer {

// CPUs' worth of time that the control groups of this process allow (a container's --cpus), or 0 without a quota. Both
// versions of control groups; the least quota between the process's group and the root counts. Inside a container the
// group's path may be that of the host, which is not mounted: then what is mounted is the container's own group.
// src/cores.ts does the same for what runs without the addon. `root` stands before every path: "" for this machine.
double cpuQuota(const char* root);

}  // namespace hpformer
