/**
 * Entry for Jazzer.js: FUZZ_TARGET names the target. Run by node alone:
 * `jazzer.js <corpus> <kept>` writes seeds and what is kept into the corpus and prints the names of the targets,
 * `jazzer.js keep <minimised> <kept>` packs a minimised corpus.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileOf, keep, kept, someChoices } from './corpus';
import { guarded, targets } from './targets';

const target = targets.find(({ name }) => name === process.env.FUZZ_TARGET);

export async function fuzz(data: Buffer): Promise<void> {
  if (target) await guarded(target, fileOf(target, data));
}

function write(corpus: string, from: string): void {
  for (const { name, seeds } of targets) {
    const folder = join(corpus, name);
    mkdirSync(folder, { recursive: true });
    for (const [i, bytes] of [...seeds(), someChoices].entries()) writeFileSync(join(folder, `seed-${i}`), bytes);
    for (const [i, bytes] of kept(from, name).entries()) writeFileSync(join(folder, `kept-${i}`), bytes);
  }
  process.stdout.write(`${targets.map(({ name }) => name).join('\n')}\n`);
}

if (require.main === module) {
  const [first, second, third] = process.argv.slice(2) as [string, string, string];
  if (first === 'keep') {
    for (const { name } of targets) {
      const from = join(second, name);
      if (existsSync(from)) process.stdout.write(`${name}: ${keep(third, name, from)} files kept\n`);
    }
  } else write(first, second);
}
