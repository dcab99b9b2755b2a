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
  checkedSteps: number;
  error: number;
}

/** 97 steps, which no block, tile or square divides, in two layers; later options win. */
function rows(...more: string[]): { status: number | null; rows: Row[] } {
  const args = ['--steps', '97', '--layers', '2', '--rounds', '1', '--no-memory', ...more];
  const { status, stdout } = spawnSync(binary, args, { encoding: 'utf8' });
  return { status, rows: (JSON.parse(stdout) as { rows: Row[] }).rows };
}

describeUnless(existsSync(binary) ? undefined : 'the attentions were not built (no native tests)', 'attentions', () => {
  test('none is missing, each agrees with its formula', () => {
    const { status, rows: found } = rows();
    expect(found.map(({ system }) => system)).toEqual(systems);
    for (const row of found) {
      expect(row).toMatchObject({ steps: 97, checked: true, checkedSteps: 97 });
      expect(row.error).toBeLessThanOrEqual(2e-5);
      expect(row.flops).toBeGreaterThan(0);
      expect(row.ms).toBeGreaterThan(0);
    }
    expect(status).toBe(0);
  });

  test('with one part of its own formula wrong every one of them is unchecked, and the program fails', () => {
    const names = [...systems, 'synthesizer-random', 'hot-kernel'];
    const { status, rows: found } = rows('--broken', '--systems', names.join(','));
    expect(found.map(({ system, checked }) => [system, checked])).toEqual(names.map((system) => [system, false]));
    for (const { error } of found) expect(error).toBeGreaterThan(1e-3);
    expect(status).toBe(1);
  });

  test('windows, chunks and routes at the length that is timed', () => {
    const names = ['longformer', 'reformer', 'sinkhorn', 'adamra'];
    const { status, rows: found } = rows('--steps', '700', '--systems', names.join(','));
    expect(found.map(({ system, checked, checkedSteps }) => [system, checked, checkedSteps])).toEqual(
      names.map((system) => [system, true, 700]),
    );
    expect(status).toBe(0);
  });

  test('a length that was not checked itself is not called checked', () => {
    for (const args of [
      ['--steps', '4097'],
      ['--axes', '70x64'],
    ]) {
      const more = [...args, '--systems', 'hpformer,hot', '--layers', '1', '--hidden', '16', '--heads', '2'];
      const { status, rows: found } = rows(...more);
      expect(found.map(({ checked, checkedSteps }) => [checked, checkedSteps])).toEqual([
        [false, 4096],
        [false, 4096],
      ]);
      for (const { error } of found) expect(error).toBeLessThanOrEqual(2e-5);
      expect(status).toBe(0);
    }
  }, 60000);

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
