/** `node bench/run.cjs native ceilings|kernels|amx|count …`: the native probe, built on first use. */
import { spawnSync } from 'node:child_process';
import { program } from './build';

const { status } = spawnSync(program('native', 'hpformer_native'), process.argv.slice(2), { stdio: 'inherit' });
process.exit(status ?? 1);
