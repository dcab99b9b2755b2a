/** Seeded mutation for a given time, without coverage as a guide: node build-fuzz/test/fuzz/long.js <seconds> [target ...] */
import { writeFileSync } from 'node:fs';
import { seed } from '../seed';
import { caseOf } from './mutate';
import { guarded, targets } from './targets';

const [seconds = '60', ...names] = process.argv.slice(2);
const chosen = targets.filter(({ name }) => names.length === 0 || names.includes(name));
/** Processor time that no file may take, in ms. */
const patience = 1000;

async function main(): Promise<void> {
  let failed = 0;
  let total = 0;
  for (const target of chosen) {
    const seeds = target.seeds();
    const end = Date.now() + Number(seconds) * 1000;
    let cases = 0;
    let slowest = 0;
    while (Date.now() < end) {
      const bytes = caseOf(seeds, seed, cases);
      // Processor time, since a busy machine makes any case slow by the clock.
      const started = process.cpuUsage();
      let finding: Error | undefined;
      try {
        await guarded(target, bytes);
      } catch (error) {
        finding = error as Error;
      }
      const { user, system } = process.cpuUsage(started);
      const took = (user + system) / 1000;
      if (took > patience) finding ??= new Error(`${took.toFixed(0)} ms for ${bytes.length} bytes`);
      slowest = Math.max(slowest, took);
      cases++;
      if (finding) {
        failed++;
        const file = `build-fuzz/${target.name}-${cases}`;
        writeFileSync(file, bytes);
        process.stdout.write(`FINDING ${file}: ${finding.stack}\n`);
        break;
      }
    }
    total += cases;
    process.stdout.write(`${target.name}: ${cases} cases, slowest ${slowest.toFixed(1)} ms, SEED=${seed}\n`);
  }
  process.stdout.write(
    `fuzz: ${chosen.length} readers, ${seconds} s each: ${total} mutated files, ${failed} findings, SEED=${seed}\n`,
  );
  process.exitCode = failed > 0 ? 1 : 0;
}

void main();
