/** Registers, spills and warps of every kernel are those of the kept table, which is made by the same nvcc. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, testUnless, withoutProgram } from '../skips';

interface Kernel {
  registers: number;
  spills: number;
  stack: number;
  warps: number;
}
const { check, table, virtual } = require('../../cuda/ptxas.cjs') as {
  check(architectures: string[]): Promise<{ compared: boolean; nvcc: string; wanted: string; lines: string[] }>;
  table: string;
  virtual: Record<string, string>;
};

const kept = JSON.parse(readFileSync(table, 'utf8')) as {
  nvcc: string;
  kernels: Record<string, Record<string, Kernel>>;
};

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

// The other targets are compared by `node cuda/ptxas.cjs --check`: a minute of processor time for each.
const withoutPtx = existsSync(join(root, 'build', 'ptx')) ? undefined : 'no nvcc when the tests were built';
testUnless(
  withoutProgram('ptxas') ?? withoutPtx,
  'ptxas says of the kernels what the table says (node cuda/ptxas.cjs > cuda/ptxas.json)',
  async () => {
    const { compared, nvcc, wanted, lines } = await check(['sm_80']);
    expect(lines).toEqual([]);
    expect(compared).toBe(nvcc === wanted);
  },
  600000,
);
