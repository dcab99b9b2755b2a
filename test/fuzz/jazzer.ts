/** Entry for Jazzer.js: FUZZ_TARGET names the target; run by node alone, writes its seeds into the folder named. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { guarded, targets } from './targets';

const target = targets.find(({ name }) => name === process.env.FUZZ_TARGET);

export async function fuzz(data: Buffer): Promise<void> {
  if (target) await guarded(target, new Uint8Array(data));
}

if (require.main === module) {
  const folder = process.argv[2]!;
  for (const { name, seeds } of targets) {
    mkdirSync(join(folder, name), { recursive: true });
    for (const [i, bytes] of seeds().entries()) writeFileSync(join(folder, name, `seed-${i}`), bytes);
  }
  process.stdout.write(`${targets.map(({ name }) => name).join('\n')}\n`);
}
