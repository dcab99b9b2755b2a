/** How many CPUs a process may use: a container's quota, of either version of control groups, counts. */
import { availableParallelism } from 'node:os';
import { availableCores, cpuQuota, type ReadText } from '../../src/cores';
import { notOn, testUnless } from '../skips';

/** A machine by what its files say. */
const machine =
  (files: Record<string, string>): ReadText =>
  (file) =>
    files[file];

test('version 2: quota over period, of the container whose path is its root or is not mounted', () => {
  for (const group of ['/', '/system.slice/docker-1.scope', '/kubepods/pod 1/c:2'])
    expect(
      cpuQuota(machine({ '/proc/self/cgroup': `0::${group}\n`, '/sys/fs/cgroup/cpu.max': '150000 100000\n' })),
    ).toBe(1.5);
});

test('version 2: the least of the quotas from the group up to the root', () => {
  const files = {
    '/proc/self/cgroup': '0::/a/b/c\n',
    '/sys/fs/cgroup/a/cpu.max': '300000 100000',
    '/sys/fs/cgroup/a/b/cpu.max': 'max 100000',
    '/sys/fs/cgroup/a/b/c/cpu.max': '50000 10000',
    '/sys/fs/cgroup/a/b/c/d/cpu.max': '1000 100000',
  };
  expect(cpuQuota(machine(files))).toBe(3);
  expect(cpuQuota(machine({ ...files, '/sys/fs/cgroup/a/b/c/cpu.max': '5000 10000' }))).toBe(0.5);
});

test('version 1: the group of the cpu controller, mounted under its own name or with its neighbour', () => {
  const cgroup = '3:cpuset:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n';
  for (const mount of ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup/cpu,cpuacct'])
    for (const group of ['', '/docker', '/docker/1'])
      expect(
        cpuQuota(
          machine({
            '/proc/self/cgroup': cgroup,
            [`${mount}${group}/cpu.cfs_quota_us`]: '250000\n',
            [`${mount}${group}/cpu.cfs_period_us`]: '100000\n',
          }),
        ),
      ).toBe(2.5);
  // The quota of another controller's group is not this process's.
  const other = { '/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us': '1', '/sys/fs/cgroup/cpu/x/cpu.cfs_period_us': '1' };
  expect(cpuQuota(machine({ '/proc/self/cgroup': cgroup, ...other }))).toBeUndefined();
});

test('both versions at once: the lesser', () => {
  const files = {
    '/proc/self/cgroup': '2:cpu:/\n0::/\n',
    '/sys/fs/cgroup/unified/cpu.max': '700000 100000',
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '400000',
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
  };
  expect(cpuQuota(machine(files))).toBe(4);
  expect(cpuQuota(machine({ ...files, '/sys/fs/cgroup/unified/cpu.max': '200000 100000' }))).toBe(2);
});

test('no quota, no file, or nothing that can be understood: none', () => {
  const v2 = (text: string) => machine({ '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': text });
  for (const text of ['max 100000\n', '', '0 100000', '-1 100000', '100000', '100000 0', 'a b'])
    expect(cpuQuota(v2(text))).toBeUndefined();
  expect(cpuQuota(machine({}))).toBeUndefined();
  expect(cpuQuota(machine({ '/proc/self/cgroup': 'nonsense\n\n' }))).toBeUndefined();
  const v1 = {
    '/proc/self/cgroup': '1:cpu:/\n',
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
  };
  expect(cpuQuota(machine(v1))).toBeUndefined();
});

testUnless(notOn('linux'), 'cores: the quota rounded up, at least 1, never more than the machine allows', () => {
  const cores = (max: string) =>
    availableCores(machine({ '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': max }));
  const all = availableParallelism();
  expect(cores('max 100000')).toBe(all);
  expect(cores('1 100000')).toBe(1);
  expect(cores('100000 100000')).toBe(1);
  expect(cores('100001 100000')).toBe(Math.min(all, 2));
  expect(cores(`${all * 100000 + 50000} 100000`)).toBe(all);
  const here = availableCores();
  expect(here).toBeGreaterThanOrEqual(1);
  expect(here).toBeLessThanOrEqual(all);
});
