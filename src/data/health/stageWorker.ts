/** The worker thread of `crew.ts`: reads episode files and runs a stage on them. */
import { parentPort, workerData } from 'node:worker_threads';
import { HPformerError, type HPformerErrorCode } from '../../errors';
import { episodeInPassing, type PreparedEpisode } from './arrays';
import { Stage, type StageOptions, type StageResult } from './stages';

/** One file to read. */
export interface StageJob {
  id: string;
  file: string;
  end: number | undefined;
}

/** Answer for one chunk of files: `numbers` holds the results one after the other, `stays` what else is known of each. */
export interface StageAnswer {
  numbers: Float32Array | Float64Array;
  stays: (
    | Omit<PreparedEpisode, 'features'>
    | { kind: 'moments'; rows: number; skipped: number }
    | { kind: 'empty' }
    | { kind: 'malformed'; message: string }
  )[];
  /** Why the stay after the last of `stays` ended the run. */
  error?: { code: HPformerErrorCode; message: string };
}

function plain(result: StageResult): StageAnswer['stays'][number] {
  if (result.kind === 'moments') return { kind: 'moments', rows: result.rows, skipped: result.skipped };
  if (result.kind !== 'features') return result;
  const { features: _, ...rest } = result.episode;
  return rest;
}

if (parentPort) {
  const port = parentPort;
  const options = workerData as StageOptions;
  const stage = new Stage(options);
  port.on('message', (jobs: StageJob[]) => {
    const { size } = stage;
    const length = jobs.length * size;
    const numbers = options.kind === 'features' ? new Float32Array(length) : new Float64Array(length);
    const answer: StageAnswer = { numbers, stays: [] };
    for (const [i, { id, file, end }] of jobs.entries()) {
      try {
        const own = numbers.subarray(i * size, (i + 1) * size);
        answer.stays.push(plain(stage.run(episodeInPassing(id, file), end, own)));
      } catch (error) {
        if (!(error instanceof HPformerError)) throw error;
        answer.error = { code: error.code, message: error.message };
        break;
      }
    }
    port.postMessage(answer, [numbers.buffer]);
  });
}
