/**
 * A seeded search in jest: so many cases, or so many seconds. SEED=<n> repeats it; FUZZ_SECONDS=<n> and FUZZ_CASES=<n> say how long.
 * Case i of a seed is always the same file: FUZZ_CASE=<i> with its SEED tries that one alone.
 */

import { seed } from '../seed';
import { caseOf } from './mutate';
import { type FuzzTarget, guarded, targets } from './targets';

/** Readers that a model or its data comes through: searched by the clock in every run of the tests, a minute each. */
export const timed = ['safetensors', 'torch', 'config', 'csv', 'onnx', 'bundle'];

const seconds = Number(process.env.FUZZ_SECONDS ?? 60);
const cases = Number(process.env.FUZZ_CASES ?? 300);
const alone = process.env.FUZZ_CASE === undefined ? undefined : Number(process.env.FUZZ_CASE);

async function tryCase(target: FuzzTarget, seeds: Uint8Array[], i: number): Promise<void> {
  const bytes = caseOf(seeds, seed, i);
  try {
    await guarded(target, bytes);
  } catch (error) {
    const shown = Buffer.from(bytes.subarray(0, 4096)).toString('base64');
    const again = `SEED=${seed} FUZZ_CASE=${i}`;
    throw new Error(`${again} (${bytes.length} bytes, base64 ${shown}): ${(error as Error).stack}`);
  }
}

/** Defines the tests of one target. */
export function search(target: FuzzTarget, by: 'seconds' | 'cases'): void {
  test(`${target.name}: a well-formed file is accepted`, async () => {
    const [result] = await Promise.allSettled([(async () => target.run(target.seeds()[0]!))()]);
    expect(result).toMatchObject({ status: 'fulfilled' });
  });

  const many = by === 'seconds' ? `mutated files for ${seconds} s` : `${cases} mutated files`;
  const limit = by === 'seconds' ? seconds * 1000 + 120000 : 120000;
  test(
    `${target.name}: ${many} give a result or an HPformerError`,
    async () => {
      const seeds = target.seeds();
      if (alone !== undefined) return tryCase(target, seeds, alone);
      const end = Date.now() + seconds * 1000;
      let i = 0;
      while (by === 'seconds' ? Date.now() < end : i < cases) await tryCase(target, seeds, i++);
      expect(i).toBeGreaterThan(0);
      if (by === 'seconds') process.stdout.write(`fuzz: ${target.name}: ${i} files in ${seconds} s, SEED=${seed}\n`);
    },
    limit,
  );
}

/** A file of tests for some of the targets that are searched by the clock. */
export function searchByTheClock(...names: string[]): void {
  describe(`hostile bytes by the clock, SEED=${seed}`, () => {
    for (const name of names) {
      const target = targets.find((candidate) => candidate.name === name);
      if (!target || !timed.includes(name)) throw new Error(`no target "${name}" to search by the clock`);
      search(target, 'seconds');
    }
  });
}
