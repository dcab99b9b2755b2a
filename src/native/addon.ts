/**
 * The typed face of the addon. Everything here is plain data: TypeScript validates, allocates every array and makes every
 * object that a user sees; native code fills the arrays and answers with a status.
 */

/** Real numbers: Float64Array on device `reference`, Float32Array on all others. */
export type NativeReal = Float32Array | Float64Array;

/** binding/contract/spec.h; enumerations are their C++ ordinals (see spec.ts). `0` / `-1` stand for null as written there. */
export interface NativeSpec {
  embedding: number;
  features: number;
  vocabulary: number;
  padding: number;
  positions: number;
  scaleInput: boolean;
  maximum: number;
  embeddingNorm: boolean;
  hidden: number;
  heads: number;
  layers: number;
  tiedLayers: boolean;
  activation: number;
  norm: number;
  rule: number;
  times: number;
  pooling: number;
  segmentSteps: number;
  over: number;
  readout: number;
  sequences: number;
  headLayers: { size: number; activation: number }[];
  labels: number;
  headBias: boolean;
  link: number;
}

export interface NativeLoadOptions {
  /** `reference`, `cpu`, `cuda:<n>` or `cuda:all`. */
  device: string;
  /** 0 float32, 1 bfloat16. */
  precision: number;
  /** Threads of one run; 0: the default. */
  threads: number;
  /** Digest of config and tensors: models with equal keys share packed weights in the process. */
  key: string;
  /** True: a non-finite result makes the run fail with `input`, naming sequence, step and feature. */
  rejectNonFinite: boolean;
}

/** One of the (at most two) input sequences of a batch; binding/contract/request.h. */
export interface NativeFeed {
  steps: number;
  features?: NativeReal;
  tokens?: Int32Array;
  values?: NativeReal;
  /** Absent: native code derives the default of the config. */
  lengths?: Int32Array;
}

/** Arrays to fill; absent ones were not asked for. Shapes in binding/contract/request.h. */
export interface NativeSequenceOutputs {
  segmentsMax: number;
  pooled?: NativeReal;
  keys?: NativeReal;
  segments?: Int32Array;
  attention?: NativeReal;
  segmentAttention?: NativeReal;
  intraAttention?: NativeReal;
  embedded?: NativeReal;
  segmentPool?: NativeReal;
  extraSegment?: NativeReal;
  intraSegment?: NativeReal;
  layers?: NativeReal[];
  encoded?: NativeReal;
}

export interface NativeRequest {
  /** Bit i set: rewrite i of binding/contract/plan.h (order of its bool fields) may be used. */
  rewrites: number;
  batch: number;
  feed: NativeFeed;
  second?: NativeFeed;
  step?: Int32Array;
  readoutWeights?: NativeReal;
  out: NativeSequenceOutputs;
  outSecond?: NativeSequenceOutputs;
  logits?: NativeReal;
  probabilities?: NativeReal;
  head?: NativeReal[];
  trace: boolean;
}

/** `code` is a StatusCode of binding/contract/status.h (0 ok, 13 aborted); 0 comes without a message. */
export type NativeDone = (code: number, message?: string) => void;

export interface NativeModel {
  /**
   * Copies the feeds (unless they sit in a SharedArrayBuffer), queues the run, returns a job number; the `done` among the
   * slots is called once, later, on this thread. `slots` and `...same` are one array from `requestSlots` (request.ts).
   */
  submit(slots: readonly unknown[], ...same: readonly unknown[]): number;
  /** Runs on the calling thread; undefined when all went well. */
  runSync(slots: readonly unknown[], ...same: readonly unknown[]): { code: number; message: string } | undefined;
  /** Asks a job to stop between tiles; its `done` still comes. */
  cancel(job: number): void;
  /** Running jobs finish; memory goes with the last of them. Idempotent. */
  dispose(): void;
  readonly packedBytes: number;
}

export interface NativeDevice {
  id: string;
  kind: 'cpu' | 'cuda';
  name: string;
  available: boolean;
  /** Why it is not available; empty when it is. */
  reason: string;
  /** Bytes of device memory (cuda), 0 for the cpu. */
  memory: number;
  /** ISA level in use (cpu) or compute capability (cuda). */
  level: string;
}

export interface NativeInfo {
  /** Addon version, equal to package.json's. */
  version: string;
  /** The ISA level in use, and all levels this machine can run, lowest first. */
  isa: string;
  isaLevels: string[];
  /** The CPU kernels' tile at that level: tokens of one sequence, or sequences side by side when one step of each is read. */
  tile: { tokens: number; sequences: number };
  /** Default number of threads (container quota, HPFORMER_THREADS). */
  threads: number;
  /** True when CUDA kernels were compiled in. */
  cudaCompiled: boolean;
  /** Bytes outside V8's heap that this isolate was told of: array buffers and packed weights of live models. */
  externalMemory: number;
  devices: NativeDevice[];
}

export interface NativeAddon {
  info(): NativeInfo;
  /** Checks and packs weights off the event loop. Weights by canonical name (src/checkpoint/names.ts), row-major. */
  createModel(
    spec: NativeSpec,
    weights: Record<string, Float32Array | Float64Array>,
    options: NativeLoadOptions,
    done: (code: number, message: string, model: NativeModel | undefined) => void,
  ): void;
  /**
   * One kernel on plain arrays (src/model/kernels.ts says which names, parameters and shapes). `device`: ordinal of a CUDA device,
   * absent for the CPU. `times`, on a CUDA device: filled with the milliseconds of as many further calls, without copies.
   */
  kernel(
    name: string,
    parameters: Record<string, number>,
    inputs: Record<string, NativeReal | Int32Array>,
    outputs: Record<string, NativeReal>,
    device?: number,
    times?: Float64Array,
  ): { code: number; message: string };
}
