/** The attentions of bench/peers: each agrees with its formula in double precision, and one that is broken on purpose is noticed. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describeUnless, root } from '../skips';

const binary = join(root, 'build', 'test', 'native', 'hpformer_attention');
const systems = [
  ...['hpformer', 'transformer', 'linformer', 'performer', 'linear', 'longformer'],
  ...['sparse', 'reformer', 'sinkhorn', 'synthesizer', 'adamra', 'hot'],
];

interface Row {
  system: string;
  steps: number;
  ms: number;
  flops: number;
  checked: boolean;
  error: number;
}

/** 97 steps: no block, tile or square divides them. */
function rows(...more: string[]): { status: number | null; rows: Row[] } {
  const args = ['--steps', '97', '--layers', '1', '--rounds', '1', '--no-memory', ...more];
  const { status, stdout } = spawnSync(binary, args, { encoding: 'utf8' });
  return { status, rows: (JSON.parse(stdout) as { rows: Row[] }).rows };
}

describeUnless(existsSync(binary) ? undefined : 'the attentions were not built (no native tests)', 'attentions', () => {
  test('none is missing, each agrees with its formula', () => {
    const { status, rows: found } = rows();
    expect(found.map(({ system }) => system)).toEqual(systems);
    for (const row of found) {
      expect(row).toMatchObject({ steps: 97, checked: true });
      expect(row.error).toBeLessThanOrEqual(2e-5);
      expect(row.flops).toBeGreaterThan(0);
      expect(row.ms).toBeGreaterThan(0);
    }
    expect(status).toBe(0);
  });

  test('with one value of its attention off by 0.01 every one of them is unchecked, and the program fails', () => {
    const { status, rows: found } = rows('--broken');
    expect(found.map(({ system, checked }) => [system, checked])).toEqual(systems.map((system) => [system, false]));
    for (const { error } of found) expect(error).toBeGreaterThan(2e-5);
    expect(status).toBe(1);
  });

  test('the other forms hold too: factorised random, kernelised, and tensors', () => {
    for (const args of [
      ['--systems', 'synthesizer-random,hot-kernel'],
      ['--systems', 'hot,hot-kernel', '--axes', '12x19'],
    ]) {
      const { status, rows: found } = rows(...args);
      expect(found.map(({ checked }) => checked)).toEqual([true, true]);
      expect(status).toBe(0);
    }
  });
});
