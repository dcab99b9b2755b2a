/**
 * What the fused kernels do on the published shapes, counted on the simulated driver, against the project's goals. Not one of
 * these figures is a time. `node cuda/counters.cjs --write` renews the tables of cuda/README.md.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cudaLibrary, describeUnless, root, withoutCudaLibrary } from '../skips';

interface Row {
  name: string;
  batch: number;
  rows: number;
  hidden: number;
  precision: 'float32' | 'bfloat16';
  path: 'fused' | 'unfused';
  launches: number;
  uniqueBytes: number;
  uniqueOverCompulsory: number;
  sectorBytes: number;
  sectorsOverBound: number;
  coalescing: number;
  conflicts: number;
  tensorShare: number;
  liveRows: number;
  localBytes: number;
  api: Record<string, number>;
}
interface Case {
  name: string;
  preset?: string;
  hidden?: number;
  layers?: number;
  batch?: number;
  steps?: number;
  rows?: number;
  launches: number;
}
const counters = require('../../cuda/counters.cjs') as {
  cases: Case[];
  count(one: Case, precision: string, path: string, options?: { runs?: number; cc?: string }): Row;
  documents(rows: Row[]): { readme: string; text: string };
};

/** Only the simulator counts; a real driver's library has no such symbol. */
function withoutSimulator(): string | undefined {
  const library = cudaLibrary();
  if (library === undefined) return withoutCudaLibrary();
  return readFileSync(library).includes('gpusimWriteReport') ? undefined : 'the CUDA driver library does not count';
}

describeUnless(withoutSimulator(), 'counted by the simulator', () => {
  const rows: Row[] = [];

  describe.each(counters.cases)('$name', (one) => {
    test.each(['bfloat16', 'float32'] as const)('%s', (precision) => {
      const row = counters.count(one, precision, 'fused');
      rows.push(row);
      expect(row.launches).toBeLessThanOrEqual(one.launches);
      expect(row.uniqueOverCompulsory).toBeLessThanOrEqual(1.05);
      expect(row.sectorsOverBound).toBeLessThanOrEqual(1);
      expect(row.coalescing).toBeGreaterThanOrEqual(0.98);
      expect(row.conflicts).toBeLessThanOrEqual(precision === 'bfloat16' ? 0.02 : 0.05);
      expect(row.localBytes).toBe(0);
      if (row.rows > 1 && precision === 'bfloat16') {
        expect(row.tensorShare).toBeGreaterThanOrEqual(row.hidden >= 128 ? 0.95 : 0.92);
      }
      if (row.rows > 1 || row.batch >= 128) expect(row.liveRows).toBeGreaterThanOrEqual(0.9);
    });

    test('unfused: more launches, more traffic', () => {
      const unfused = counters.count(one, 'float32', 'unfused');
      rows.push(unfused);
      const fused = rows.find((row) => row.name === one.name && row.path === 'fused' && row.precision === 'float32')!;
      expect(unfused.launches).toBeGreaterThan(10 * fused.launches);
      expect(unfused.uniqueBytes).toBeGreaterThan(3 * fused.uniqueBytes);
    });
  });

  // 8.6 and 8.9 have 99 KB of shared memory for a block, 8.0 163 and 9.0 227.
  test.each(['8.6', '9.0'])(
    'one launch on capability %s, whatever the width',
    (cc) => {
      const long = { preset: 'decompensation', batch: 1, steps: 504, rows: 504, layers: 1 };
      const short = { preset: 'mortality', batch: 3, steps: 48, rows: 1, layers: 1 };
      const text = { preset: 'text', batch: 1, steps: 200, rows: 200, layers: 1 };
      for (const one of [long, short, text]) {
        for (const precision of ['float32', 'bfloat16']) {
          const { launches } = counters.count(
            { ...one, name: one.preset, hidden: 256, launches: 1 },
            precision,
            'fused',
            { cc },
          );
          expect([one.preset, precision, launches]).toEqual([one.preset, precision, 1]);
        }
      }
    },
    120000,
  );

  test('a repeated shape allocates nothing, and is one graph launch a batch', () => {
    const [few, many] = [3, 8].map((runs) => counters.count(counters.cases[0]!, 'bfloat16', 'fused', { runs }));
    for (const name of [
      'allocations',
      'allocated_bytes',
      'peak_bytes',
      'frees',
      'leaked_allocations',
      'leaked_bytes',
    ]) {
      expect([name, many!.api[name]]).toEqual([name, few!.api[name]]);
    }
    expect(few!.api.leaked_allocations).toBe(0);
    expect(many!.launches - few!.launches).toBe(5);
    expect(many!.api.kernel_launches).toBe(few!.api.kernel_launches); // launches outside of a graph
    expect(many!.api.graph_launches! - few!.api.graph_launches!).toBe(5);
  });

  test('cuda/README.md has these figures (node cuda/counters.cjs --write)', () => {
    const { readme, text } = counters.documents(rows);
    expect(readFileSync(join(root, readme), 'utf8')).toBe(text);
  });
});
