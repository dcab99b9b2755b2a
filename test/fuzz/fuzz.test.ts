/**
 * A short, seeded fuzz of everything that reads bytes: SEED=<n> repeats, FUZZ_CASES=<n> does more. Findings are kept in
 * findings/ (named <target>-<what>) and tried first. `npm run test:fuzz` searches with coverage as a guide.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generator, mutate } from './mutate';
import { guarded, targets } from './targets';

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
const cases = Number(process.env.FUZZ_CASES ?? 300);
const findings = join(__dirname, 'findings');

describe(`hostile bytes, SEED=${seed}`, () => {
  for (const target of targets) {
    test(`${target.name}: a well-formed file is accepted`, async () => {
      const [result] = await Promise.allSettled([(async () => target.run(target.seeds()[0]!))()]);
      expect(result).toMatchObject({ status: 'fulfilled' });
    });

    test(`${target.name}: ${cases} mutated files give a result or an HPformerError`, async () => {
      const random = generator(seed);
      const seeds = target.seeds();
      for (let i = 0; i < cases; i++) {
        let bytes = mutate(seeds[random() % seeds.length]!, random);
        if (random() % 4 === 0) bytes = mutate(bytes, random);
        try {
          await guarded(target, bytes);
        } catch (error) {
          const shown = Buffer.from(bytes.subarray(0, 4096)).toString('base64');
          throw new Error(`SEED=${seed} case ${i} (${bytes.length} bytes, base64 ${shown}): ${(error as Error).stack}`);
        }
      }
    }, 120000);
  }

  const kept = existsSync(findings) ? readdirSync(findings).sort() : [];
  for (const name of kept) {
    test(`kept finding ${name}`, async () => {
      const target = targets.find((candidate) => name.startsWith(`${candidate.name}-`));
      expect(target).toBeDefined();
      await guarded(target!, new Uint8Array(readFileSync(join(findings, name))));
    });
  }
});
