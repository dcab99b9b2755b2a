import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { posix } from 'node:path';

/** A file's text, or undefined when it cannot be read. */
export type ReadText = (file: string) => string | undefined;

const readSystem: ReadText = (file) => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
};

const mounts = '/sys/fs/cgroup';

/** Processor time for each unit of time: quota over period, both in microseconds; undefined when there is no quota. */
function share(quota: string | undefined, period: string | undefined): number | undefined {
  const value = Number(quota) / Number(period);
  return value > 0 && Number.isFinite(value) ? value : undefined;
}

function quotaAt(folder: string, version: 1 | 2, read: ReadText): number | undefined {
  if (version === 2) {
    const [quota, period] = (read(`${folder}/cpu.max`) ?? '').trim().split(/\s+/);
    return share(quota, period);
  }
  return share(read(`${folder}/cpu.cfs_quota_us`), read(`${folder}/cpu.cfs_period_us`));
}

/**
 * CPUs' worth of time that the control groups of this process allow (a container's `--cpus`), or undefined without a quota. Both
 * versions of control groups; the smallest quota between the process's group and the root counts. Inside a container the group's path
 * may be that of the host, which is not mounted: then what is mounted is the container's own group.
 *
 * @internal
 */
export function cpuQuota(read: ReadText = readSystem): number | undefined {
  let least: number | undefined;
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, group] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || group === undefined) continue;
    const version = controllers === '' ? 2 : 1;
    if (version === 1 && !controllers.split(',').includes('cpu')) continue;
    for (const mount of version === 2 ? [mounts, `${mounts}/unified`] : [`${mounts}/cpu`, `${mounts}/${controllers}`]) {
      for (let at = posix.join('/', group); ; at = posix.dirname(at)) {
        const quota = quotaAt(at === '/' ? mount : mount + at, version, read);
        if (quota !== undefined) least = Math.min(least ?? quota, quota);
        if (at === '/') break;
      }
    }
  }
  return least;
}

/**
 * CPUs that this process may use at the same time: those it may run on, and no more than its control groups' quota, rounded up
 * (`os.availableParallelism` knows nothing of the quota in Node.js 20). At least 1.
 *
 * @internal
 */
export function availableCores(read?: ReadText): number {
  const quota = process.platform === 'linux' ? cpuQuota(read) : undefined;
  const cores = availableParallelism();
  return quota === undefined ? cores : Math.max(1, Math.min(cores, Math.ceil(quota)));
}
