/** `node bench/run.cjs attention --steps N …`: the encoders of bench/peers, built on first use; prints `{ rows }`. */
import { spawnSync } from 'node:child_process';
import { program } from './build';

// `--json` is what it prints anyway.
const args = process.argv.slice(2).filter((arg) => arg !== '--json');
const { status } = spawnSync(program('peers', 'hpformer_attention'), args, { stdio: 'inherit' });
process.exit(status ?? 1);
