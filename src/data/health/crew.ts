/**
 * Many stays through a stage, in order, on worker threads where that pays: the same results as one after the other on this thread,
 * in bounded memory.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { availableCores } from '../../cores';
import { HPformerError } from '../../errors';
import { reasonOf, throwIfAborted } from '../../model/abort';
import { checkInteger, checkSignal } from '../../model/options';
import { type EpisodeInput, episodeInPassing } from './arrays';
import { Stage, type StageOptions, type StageResult } from './stages';
import type { StageAnswer, StageJob } from './stageWorker';

const ownScript = path.join(__dirname, 'stageWorker.js');
/** Stays done on this thread before threads are started: a few hundred are done sooner than a thread starts. */
const alone = 256;
/** A chunk is at most this many stays, and about this many bytes of results. */
const chunkStays = 64;
const chunkBytes = 1 << 20;
/** Chunks a worker has before it: one in work and one waiting. */
const ahead = 2;

/** One stay to do: an episode file by name, or readings that another format gave. */
export interface CrewJob {
  id: string;
  file: string;
  /** Last hour of the stay, where a list file gives it. */
  end?: number | undefined;
  /** Readings already at hand; default: `file` is read. */
  input?: EpisodeInput;
}

/** How the work is shared. */
export interface CrewOptions {
  /**
   * Threads; 0: all on this thread. Default: the cores that this process may use (a container's quota counts), up to 8, and 0
   * where there is one.
   */
  workers?: number | undefined;
  /** Ends the work: the generator throws its reason. */
  signal?: AbortSignal | undefined;
  /** What the threads run; only tests give another. @internal */
  script?: string | undefined;
}

/** Checks how the work is to be shared. @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE`. */
export function checkCrewOptions({ workers, signal }: CrewOptions): void {
  if (workers !== undefined) checkInteger('workers', workers, 0, 1024);
  checkSignal(signal);
}

interface Waiting {
  resolve: (answer: StageAnswer) => void;
  reject: (error: unknown) => void;
}

/** One worker thread and the chunks it has not answered yet. A thread that ends fails them all, so nobody waits for ever. */
class Hand {
  readonly waiting: Waiting[] = [];
  private readonly worker: Worker;
  private failure: unknown;

  constructor(script: string, options: StageOptions) {
    this.worker = new Worker(script, { workerData: options, execArgv: [] });
    this.worker.on('message', (answer: StageAnswer) => this.waiting.shift()?.resolve(answer));
    this.worker.on('messageerror', (error) => this.fail(error));
    this.worker.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'ERR_HPFORMER_MEMORY' : 'ERR_HPFORMER_INTERNAL';
      const message = `health worker thread: expected prepared stays, got ${error.stack ?? error.message}`;
      this.fail(new HPformerError(code, message, { cause: error }));
    });
    this.worker.on('exit', (code) => {
      const message = `health worker thread: expected prepared stays, got its end with exit code ${code}`;
      this.fail(new HPformerError('ERR_HPFORMER_INTERNAL', message));
    });
  }

  submit(jobs: StageJob[]): Promise<StageAnswer> {
    const answer = new Promise<StageAnswer>((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure);
      this.waiting.push({ resolve, reject });
      this.worker.postMessage(jobs);
    });
    // It is awaited in its turn; until then nobody else handles its failure.
    answer.catch(() => undefined);
    return answer;
  }

  fail(error: unknown): void {
    this.failure ??= error;
    for (const { reject } of this.waiting.splice(0)) reject(this.failure);
  }

  async end(): Promise<void> {
    await this.worker.terminate();
  }
}

/** The threads to use: as asked, but none where their script is not at hand (a bundle of all code in one file). */
function threadCount(asked: number | undefined, script: string): number {
  const cores = availableCores();
  const count = asked ?? (cores > 1 ? Math.min(8, cores) : 0);
  return existsSync(script) ? count : 0;
}

const inputOf = (job: CrewJob): EpisodeInput => job.input ?? episodeInPassing(job.id, job.file);

/**
 * Runs a stage over jobs and gives each with its result, in the order of the jobs.
 *
 * @throws HPformerError what the stage throws, at its place in the order; `ERR_HPFORMER_MEMORY` or `ERR_HPFORMER_INTERNAL` when a thread
 * ends; the reason of the signal.
 */
export async function* runStage<Job extends CrewJob>(
  stageOptions: StageOptions,
  jobs: AsyncIterable<Job>,
  options: CrewOptions = {},
): AsyncGenerator<[job: Job, result: StageResult]> {
  checkCrewOptions(options);
  const { signal, script = ownScript } = options;
  const stage = new Stage(stageOptions);
  const elementBytes = stageOptions.kind === 'features' ? 4 : 8;
  const chunkSize = Math.max(1, Math.min(chunkStays, Math.floor(chunkBytes / (stage.size * elementBytes))));
  const workers = threadCount(options.workers, script);
  const hands: Hand[] = [];
  const stop = (): void => {
    for (const hand of hands) hand.fail(reasonOf(signal!));
  };
  signal?.addEventListener('abort', stop);
  // Results in the order of the jobs: of a chunk in work, or at hand.
  const queue: (() => AsyncGenerator<[Job, StageResult]>)[] = [];
  let chunk: Job[] = [];
  let done = 0;
  let chunks = 0;

  const send = (): void => {
    if (chunk.length === 0) return;
    const sent = chunk;
    chunk = [];
    while (hands.length < workers) hands.push(new Hand(script, stageOptions));
    const answer = hands[chunks++ % workers]!.submit(sent.map(({ id, file, end }) => ({ id, file, end })));
    queue.push(() => unpack(sent, answer, stage.size));
  };
  // A job that cannot be had ends the jobs; those before it are still given first.
  let failure: { error: unknown } | undefined;
  const had = async function* (): AsyncGenerator<Job> {
    try {
      yield* jobs;
    } catch (error) {
      failure = { error };
    }
  };
  try {
    for await (const job of had()) {
      throwIfAborted(signal);
      if (workers === 0 || done < alone) {
        // The event loop gets its turn now and then: files are read synchronously, which is far cheaper than a promise each.
        if (++done % 32 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
        yield [job, stage.run(inputOf(job), job.end)];
        continue;
      }
      if (job.input) {
        send();
        const { input } = job;
        queue.push(async function* () {
          yield [job, stage.run(input, job.end)];
        });
      } else {
        chunk.push(job);
        if (chunk.length === chunkSize) send();
      }
      while (queue.length >= ahead * workers) yield* queue.shift()!();
    }
    throwIfAborted(signal);
    send();
    for (const results of queue) yield* results();
    if (failure) throw failure.error;
  } finally {
    signal?.removeEventListener('abort', stop);
    await Promise.all(hands.map((hand) => hand.end()));
  }
}

async function* unpack<Job extends CrewJob>(
  jobs: readonly Job[],
  answer: Promise<StageAnswer>,
  size: number,
): AsyncGenerator<[Job, StageResult]> {
  const { numbers, stays, error } = await answer;
  for (const [i, stay] of stays.entries()) {
    const own = numbers.subarray(i * size, (i + 1) * size);
    if (!('kind' in stay)) {
      yield [jobs[i]!, { kind: 'features', episode: { ...stay, features: own as Float32Array } }];
    } else if (stay.kind === 'moments') {
      yield [jobs[i]!, { ...stay, moments: own as Float64Array }];
    } else {
      yield [jobs[i]!, stay];
    }
  }
  if (error) throw new HPformerError(error.code, error.message);
}
