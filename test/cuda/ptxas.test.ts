/** No kernel spills or fills too few warps; registers are those of the kept table where that is made by the same nvcc. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, testUnless, withoutProgram } from '../skips';

interface Kernel {
  registers: number;
  spills: number;
  stack: number;
  warps: number;
}
interface Table {
  nvcc: string;
  kernels: Record<string, Record<string, Kernel>>;
}
interface Verdict {
  compared: boolean;
  nvcc: string;
  wanted: string;
  lines: string[];
}
const { check, judge, table, virtual } = require('../../cuda/ptxas.cjs') as {
  check(architectures: string[]): Promise<Verdict>;
  judge(now: Table, wanted: Table): Verdict;
  table: string;
  virtual: Record<string, string>;
};

const kept = JSON.parse(readFileSync(table, 'utf8')) as Table;

test('no shipped kernel spills or fills fewer than 8 warps on any target', () => {
  expect(Object.keys(kept.kernels)).toEqual(Object.keys(virtual));
  const names = Object.values(kept.kernels).map((kernels) => Object.keys(kernels).join());
  expect(new Set(names).size).toBe(1);
  const instances = Object.keys(kept.kernels.sm_80!).filter((name) => /^(stack|tdhp)_/.test(name));
  expect(instances.length).toBeLessThanOrEqual(40);
  for (const kernels of Object.values(kept.kernels)) {
    for (const [name, kernel] of Object.entries(kernels)) {
      expect({ name, spills: kernel.spills, enough: kernel.warps >= 8 }).toEqual({ name, spills: 0, enough: true });
    }
  }
});

test('spills, too few warps and kernels that come or go are found whatever the nvcc; registers of the same nvcc', () => {
  const kernel = { registers: 100, shared: 0, spills: 0, stack: 0, warps: 16 };
  const found = (nvcc: string, stack: Partial<Kernel> | null, before: Partial<Kernel> | null = {}) => {
    const of = (change: Partial<Kernel> | null) => (change === null ? {} : { stack: { ...kernel, ...change } });
    return judge({ nvcc, kernels: { sm_90: of(stack) } }, { nvcc: '13.0.88', kernels: { sm_90: of(before) } }).lines;
  };
  for (const nvcc of ['13.0.88', '12.9.41']) {
    const more = nvcc === '13.0.88' ? 1 : 0;
    expect(found(nvcc, {})).toEqual([]);
    expect(found(nvcc, { registers: 101 })).toHaveLength(more);
    expect(found(nvcc, { spills: 8 })).toContain('stack on sm_90 spills');
    expect(found(nvcc, { spills: 8 })).toHaveLength(1 + more);
    expect(found(nvcc, { warps: 7 })).toContain('stack on sm_90: 7 warps');
    expect(found(nvcc, null)).toHaveLength(1);
    expect(found(nvcc, {}, null)).toHaveLength(1);
  }
});

// All targets: `node cuda/ptxas.cjs --check`, a minute of processor time for each; the release job runs it with its own nvcc.
const withoutPtx = existsSync(join(root, 'build', 'ptx')) ? undefined : 'no nvcc when the tests were built';
testUnless(
  withoutProgram('ptxas') ?? withoutPtx,
  'ptxas finds no spills, and what the table says (node cuda/ptxas.cjs > cuda/ptxas.json)',
  async () => {
    const { compared, nvcc, wanted, lines } = await check(['sm_80']);
    expect(lines).toEqual([]);
    expect(compared).toBe(nvcc === wanted);
  },
  600000,
);
