/** bfloat16 on real patients: what it costs in ranking quality (design, section 8: at most 0.002). */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binaryMetrics } from '../../src/data/metrics';
import { csvRows } from '../golden/fixture';
import { root } from '../skips';

const data = join(root, 'examples', 'nafld');
const bound = 0.002;

/** The command as a user starts it, on the CPU. */
function hpformer(command: string, model: string, ...options: string[]): string {
  const program = join(root, 'dist', 'cli', 'main.js');
  const args = [program, command, join(root, 'examples', model), data, '--device', 'cpu', ...options];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  expect([status, command === 'evaluate' ? stderr : '']).toEqual([0, '']);
  return stdout;
}

interface Label {
  name: string;
  rows: number;
  auroc: { value: number };
  auprc: { value: number };
  logLoss: number;
}

test.each([
  ['nafld-mortality', 1],
  ['nafld-outcomes', 8],
])('%s, all people of the test part: AUROC and AUPRC of each of %d labels within 0.002 of float32', (model, count) => {
  const [wide, narrow] = (['float32', 'bfloat16'] as const).map((precision) => {
    const got = JSON.parse(hpformer('evaluate', model, '--bootstrap', '0', '--json', '--precision', precision));
    expect(got.precision).toBe(precision);
    return got.labels as Label[];
  });
  expect(wide!.length).toBe(count);
  for (const [i, label] of wide!.entries()) {
    const other = narrow![i]!;
    expect([other.name, other.rows]).toEqual([label.name, label.rows]);
    expect(Math.abs(other.auroc.value - label.auroc.value)).toBeLessThanOrEqual(bound);
    expect(Math.abs(other.auprc.value - label.auprc.value)).toBeLessThanOrEqual(bound);
    // Other numbers came out: it was not float32 twice.
    expect(other.logLoss).not.toBe(label.logLoss);
  }
});

test('the 200 people of expected.csv: bfloat16 ranks them as the authors’ code does, within 0.002', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-bfloat16-'));
  try {
    const out = join(folder, 'scores.csv');
    hpformer('predict', 'nafld-mortality', '--precision', 'bfloat16', '--out', out);
    const scores = new Map(csvRows(readFileSync(out, 'utf8')).map(([id, score]) => [id, Number(score)]));
    const people = csvRows(readFileSync(join(root, 'examples', 'nafld-mortality', 'expected.csv'), 'utf8'));
    expect(people.length).toBe(200);
    const labels = people.map(([, , , label]) => Number(label));
    const theirs = binaryMetrics(
      labels,
      people.map(([, probability]) => Number(probability)),
    );
    const ours = binaryMetrics(
      labels,
      people.map(([id]) => scores.get(id)!),
    );
    expect(Math.abs(ours.auroc - theirs.auroc)).toBeLessThanOrEqual(bound);
    expect(Math.abs(ours.auprc - theirs.auprc)).toBeLessThanOrEqual(bound);
    expect(people.some(([id, probability]) => Math.fround(Number(probability)) !== scores.get(id)!)).toBe(true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
