import type { Checkpoint } from '../checkpoint/load';
import type { HPformerConfig } from '../config/types';
import { validateConfig } from '../config/validate';
import { codedError, HPformerError } from '../errors';
import type { NativeModel } from '../native/addon';
import { loadAddon } from '../native/load';
import { requestSlots } from '../native/request';
import { statusAborted, statusError } from '../native/status';
import { describe } from '../tensor/shape';
import { Tensor } from '../tensor/tensor';
import { reasonOf, throwIfAborted, untilAborted, whenAborted } from './abort';
import { createNative } from './devices';
import { mainFeed, type PreparedFeeds, prepareFeeds, secondFeed } from './feeds';
import type { ModelGraph } from './graph';
import { checkInteger, checkShape, checkSignal, type ResolvedOptions, resolveOptions } from './options';
import { checkOutputs, defaultOutputs, type PreparedRun, prepareRun, traceOutputs } from './outputs';
import type { Plan, PlanContext } from './plan';
import { mapInOrder, type Source } from './stream';
import type {
  CreateOptions,
  DefaultOutput,
  Feeds,
  LoadOptions,
  ParameterCount,
  PlanShape,
  Precision,
  Results,
  RunOptions,
  RunSyncOptions,
  Shape,
  StreamOptions,
} from './types';

interface NativeFailure {
  code: number;
  message: string;
}

interface Parts {
  checkpoint: Checkpoint;
  native: NativeModel;
  device: string;
  options: ResolvedOptions;
}

/** Taken when first needed, so that reading the package alone is quick (`node test/trust/figures.cjs require`). */
const weights = () => require('./weights') as typeof import('./weights');
const graphs = () => require('./graph') as typeof import('./graph');
const plans = () => require('./plan') as typeof import('./plan');

/** Keeps the constructor to this file: a model comes from `load` or `create`. */
const key = Symbol('HPformer');

/**
 * A loaded HPformer model on one device. Safe to call from many places at once; every method that computes may run
 * while others do. Nothing here touches the network.
 */
export class HPformer {
  /** The configuration, complete and frozen. */
  readonly config: HPformerConfig;
  /** `cpu`, `reference`, `cuda:0` … */
  readonly device: string;
  /** As asked for at load (models narrower than 32 channels keep float32 operands in `bfloat16`); `float64` on the reference device. */
  readonly precision: Precision | 'float64';
  /** Numbers that the forward reads, and those of them that training moves (not batchnorm's running statistics). */
  readonly parameterCount: Readonly<ParameterCount>;
  /** Strings that the file carries beside its tensors and its configuration. */
  readonly metadata: Readonly<Record<string, string>>;

  /** What `save` writes; none once disposed of. */
  #checkpoint: Checkpoint | undefined;
  readonly #native: NativeModel;
  readonly #options: ResolvedOptions;
  readonly #double: boolean;
  readonly #defaults: string[];
  #graph: ModelGraph | undefined;
  #disposed = false;
  #running = 0;
  #idle: (() => void)[] = [];

  private constructor(token: typeof key, parts: Parts) {
    if (token !== key) {
      throw new HPformerError(
        'ERR_HPFORMER_TYPE',
        'HPformer: expected HPformer.load(...) or HPformer.create(...), got new HPformer',
      );
    }
    const { checkpoint, native, device, options } = parts;
    this.config = checkpoint.config;
    this.device = device;
    this.#double = device === 'reference';
    this.precision = this.#double ? 'float64' : options.precision;
    this.parameterCount = Object.freeze({ ...checkpoint.parameterCount });
    this.metadata = Object.freeze({ ...checkpoint.metadata });
    this.#checkpoint = checkpoint;
    this.#native = native;
    this.#options = options;
    this.#defaults = defaultOutputs(this.config);
  }

  /**
   * Loads a checkpoint: safetensors or PyTorch `.pt`, ours or upstream's names.
   *
   * @param source - path, `file:` URL or the file's bytes (read before this returns), or a model directory (`hpformer.json`), whose hashes are checked.
   * Never the network.
   * @returns the model, its weights packed for the device.
   * @throws HPformerError `ERR_HPFORMER_FILE`, `_CHECKPOINT`, `_CONFIG`, `_DEVICE`, `_ADDON`, `_MEMORY`; an abort rejects with `signal.reason`.
   */
  static async load(source: string | URL | Uint8Array, options?: LoadOptions): Promise<HPformer> {
    const resolved = resolveOptions(options);
    throwIfAborted(resolved.signal);
    const loading = weights().readWeights(source, options?.config);
    const checkpoint = await untilAborted(loading, resolved.signal);
    return HPformer.#build(checkpoint, resolved);
  }

  /**
   * A model with random weights by the upstream initialisation.
   *
   * @param config - validated, completed with the documented defaults.
   * @throws HPformerError `ERR_HPFORMER_CONFIG`, `_RANGE`, `_DEVICE`, `_ADDON`, `_MEMORY`.
   */
  static async create(config: HPformerConfig, options?: CreateOptions): Promise<HPformer> {
    const resolved = resolveOptions(options);
    const seed = options?.seed ?? 0;
    checkInteger('seed', seed, 0, Number.MAX_SAFE_INTEGER);
    throwIfAborted(resolved.signal);
    const complete = validateConfig(config);
    return HPformer.#build(weights().randomWeights(complete, seed), resolved);
  }

  static async #build(checkpoint: Checkpoint, options: ResolvedOptions): Promise<HPformer> {
    const created = createNative(loadAddon(), checkpoint, options);
    try {
      const { native, device } = await untilAborted(created, options.signal);
      return new HPformer(key, { checkpoint, native, device, options });
    } catch (error) {
      // An abort does not wait for the packing of weights; what it makes is let go when it comes.
      created.then(({ native }) => native.dispose()).catch(() => {});
      throw error;
    }
  }

  /**
   * Runs one batch without blocking the event loop.
   *
   * @param feeds - see {@link Feeds}; copied before this returns unless they sit in a SharedArrayBuffer.
   * @returns exactly the outputs asked for; float32 (float64 on the reference device).
   * @throws HPformerError (as a rejection) `ERR_HPFORMER_INPUT`, `_TYPE`, `_SHAPE`, `_RANGE`, `_LIMIT`, `_MEMORY`, `_DEVICE`,
   * `_DISPOSED`; an abort rejects with `signal.reason`, unchanged.
   */
  async run<Name extends string = DefaultOutput>(feeds: Feeds, options?: RunOptions<Name>): Promise<Results<Name>> {
    this.#check(options);
    checkSignal(options?.signal);
    throwIfAborted(options?.signal);
    const run = this.#prepare(feeds, options?.outputs, false);
    const failed = await this.#submit(run, options?.signal);
    if (failed) throw statusError(failed.code, failed.message);
    return run.results() as Results<Name>;
  }

  /**
   * The same as {@link run} on the calling thread, for single small inputs where a thread hop costs more than the model.
   * Blocks until done.
   *
   * @throws HPformerError as {@link run} rejects with.
   */
  runSync<Name extends string = DefaultOutput>(feeds: Feeds, options?: RunSyncOptions<Name>): Results<Name> {
    this.#check(options);
    const run = this.#prepare(feeds, options?.outputs, false);
    const slots = requestSlots(run.request, undefined);
    const failed = this.#native.runSync(slots, ...slots);
    if (failed) throw statusError(failed.code, failed.message);
    return run.results() as Results<Name>;
  }

  /**
   * Every intermediate by name, computed unfused in the model's precision: `embedded`, `segmentPool`, `extraSegment`,
   * `intraSegment`, `keys`, `layer.0` …, `encoded`, `pooled`, `head.0` …, `logits`, `probabilities`; of a second
   * sequence with the prefix `second.`.
   */
  async trace(feeds: Feeds, options?: { signal?: AbortSignal | undefined }): Promise<Results> {
    this.#check(options);
    checkSignal(options?.signal);
    throwIfAborted(options?.signal);
    const run = this.#prepare(feeds, undefined, true);
    const failed = await this.#submit(run, options?.signal);
    if (failed) throw statusError(failed.code, failed.message);
    return run.results() as Results;
  }

  /**
   * Runs a sequence of batches and yields their results in order. The source is read no further ahead than `concurrency`
   * batches; leaving the loop early stops what is in flight and closes the source.
   *
   * @param source - async (or plain) iterable of {@link Feeds}.
   * @throws HPformerError (from the loop) as {@link run} rejects with; `ERR_HPFORMER_LIMIT` also where more than 1,024 runs of all
   * models of the process would wait.
   */
  stream<Name extends string = DefaultOutput>(
    source: Source<Feeds>,
    options?: StreamOptions<Name>,
  ): AsyncGenerator<Results<Name>, void, undefined> {
    const { outputs, concurrency, signal } = options ?? {};
    const closing = new AbortController();
    const run = (feeds: Feeds, inner: AbortSignal) => this.run<Name>(feeds, { outputs, signal: inner });
    const check = () => {
      this.#check(options);
      checkSignal(signal);
      checkOutputs(this.config, outputs);
    };
    const results = (async function* () {
      check();
      yield* mapInOrder(source, run, { concurrency, signal, closing: closing.signal });
    })();
    // A generator's own `return` waits for a `next` that waits for the source: a reader that goes away would not be noticed.
    const end = results.return.bind(results);
    results.return = (value) => {
      closing.abort();
      return end(value);
    };
    return results;
  }

  /** The typed graph: embed → tdhp → one `K_comp` edge to all layers → readout → head. */
  get graph(): ModelGraph {
    return (this.#graph ??= graphs().buildGraph(this.config));
  }

  /**
   * What would be done for a batch of this shape: rewrites and what each saves, tiles, FLOPs, bytes. Plain data.
   * @throws HPformerError `ERR_HPFORMER_TYPE`, `_RANGE`, `_SHAPE`.
   */
  plan(shape: PlanShape): Plan {
    return plans().buildPlan(this.config, shape, {
      device: this.device,
      precision: this.precision,
      isa: this.device === 'cpu' ? loadAddon().info().isa : '',
      tile: this.#tile(),
      rewrites: this.#options.rewrites,
      threads: this.#options.threads,
    });
  }

  /** Tokens, or sequences of which one step is read, that go through the layers together. */
  #tile(): PlanContext['tile'] {
    if (this.device === 'cpu') return loadAddon().info().tile;
    const rows = this.device === 'reference' ? 1 : 16; // a tensor-core tile has 16 rows
    return { tokens: rows, sequences: rows };
  }

  /** Runs zeros of a shape once, so that the first real batch of that shape finds its memory ready. */
  async warmup(shape: Shape): Promise<void> {
    this.#check(undefined);
    await this.run(zeroFeeds(this.config, shape));
  }

  /**
   * Writes configuration and weights as one safetensors file.
   * @throws HPformerError `ERR_HPFORMER_FILE`, `_DISPOSED`.
   */
  async save(path: string | URL): Promise<void> {
    this.#check(undefined);
    const { weights: tensors, metadata } = this.#checkpoint!;
    await weights().saveCheckpoint(path, this.config, tensors, metadata);
  }

  /** Lets the model go: running calls finish, later ones fail with `ERR_HPFORMER_DISPOSED`. Idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#checkpoint = undefined;
    this.#native.dispose();
  }

  /** As {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** As {@link dispose}, and waits for the running calls. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
    if (this.#running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  #check(options: unknown): void {
    if (this.#disposed)
      throw new HPformerError('ERR_HPFORMER_DISPOSED', 'model: expected a live model, got one that was disposed');
    if (options !== undefined && (typeof options !== 'object' || options === null)) {
      throw new HPformerError('ERR_HPFORMER_TYPE', `options: expected an object, got ${describe(options)}`);
    }
  }

  #prepare(feeds: Feeds, outputs: readonly string[] | undefined, trace: boolean): PreparedRun {
    const names = trace
      ? traceOutputs(this.config)
      : outputs === undefined
        ? this.#defaults
        : checkOutputs(this.config, outputs);
    const { rewrites, maxBytes } = this.#options;
    let prepared: PreparedFeeds;
    try {
      prepared = prepareFeeds(this.config, feeds, this.#double, maxBytes);
    } catch (error) {
      throw codedError('feeds', error);
    }
    return prepareRun(this.config, prepared, names, { double: this.#double, trace, rewrites, maxBytes });
  }

  /** Answers the native status of a run that failed: an error made by the awaiting caller has the caller in its stack. */
  #submit(run: PreparedRun, signal: AbortSignal | undefined): Promise<NativeFailure | undefined> {
    return new Promise((resolve, reject) => {
      let job: number | undefined;
      // The promise settles at once; the job stops at its next tile and its arrays stay alive until then.
      const takeBack = whenAborted(signal, () => {
        reject(reasonOf(signal!));
        if (job !== undefined) this.#native.cancel(job);
      });
      this.#running++;
      try {
        const slots = requestSlots(run.request, (code, message = '') => {
          takeBack();
          this.#finished();
          if (code === 0) resolve(undefined);
          else if (code === statusAborted && signal?.aborted) reject(reasonOf(signal));
          else resolve({ code, message });
        });
        job = this.#native.submit(slots, ...slots);
      } catch (error) {
        takeBack();
        this.#finished();
        reject(codedError('run', error));
      }
    });
  }

  #finished(): void {
    this.#running--;
    if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }
}

/** Feeds of zeros (a token that is not padding) of a shape. */
function zeroFeeds(config: HPformerConfig, shape: Shape): Feeds {
  const { batch, steps, steps2 } = checkShape('warmup', shape);
  const { embedding } = config;
  const make = (length: number): Tensor => {
    if (embedding.kind === 'tokens') {
      const token = embedding.padding === 0 && embedding.vocabulary > 1 ? 1 : 0;
      return new Tensor('int32', new Int32Array(batch * length).fill(token), [batch, length]);
    }
    const width = embedding.kind === 'features' ? embedding.size : 1;
    const dims = embedding.kind === 'features' ? [batch, length, width] : [batch, length];
    return new Tensor('float32', new Float32Array(batch * length * width), dims);
  };
  const lengths = (length: number) => new Tensor('int32', new Int32Array(batch).fill(length), [batch]);
  const main = mainFeed(config);
  try {
    const feeds: Feeds = { [main]: make(steps), lengths: lengths(steps) };
    if (config.sequences === 2) Object.assign(feeds, { [secondFeed(config)]: make(steps2), lengths2: lengths(steps2) });
    return feeds;
  } catch (cause) {
    if (cause instanceof HPformerError) throw cause;
    throw new HPformerError('ERR_HPFORMER_MEMORY', `warmup: [${batch}, ${steps}] could not be allocated`, { cause });
  }
}
