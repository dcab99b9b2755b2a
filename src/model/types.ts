import type { DeepPartial } from '../config/merge';
import type { HPformerConfig } from '../config/types';
import type { Tensor, TensorLike } from '../tensor/tensor';

/** Number format of the matrix operands; accumulation, softmax and norms are float32 in both. */
export type Precision = 'float32' | 'bfloat16';

/** Where a model runs. `auto`: CUDA where it works, else the CPU, with the reason in `devices()`. */
export type DeviceRequest = 'auto' | 'cpu' | 'reference' | 'cuda' | `cuda:${number}` | 'cuda:all';

/** Name of one exact rewrite of the computation (docs/concepts.md); each can be switched off by the load option `rewrites`. */
export type RewriteName =
  | 'depthFirst'
  | 'readoutPruning'
  | 'absorbedEmbedding'
  | 'zeroRowsClosedForm'
  | 'tokenTables'
  | 'foldedOutput'
  | 'foldedWeights';

/** All of them in the order of binding/contract/plan.h. */
export const rewriteNames = [
  'depthFirst',
  'readoutPruning',
  'absorbedEmbedding',
  'zeroRowsClosedForm',
  'tokenTables',
  'foldedOutput',
  'foldedWeights',
] as const satisfies readonly RewriteName[];

/** Options of `HPformer.create`, and of `HPformer.load` except `config`. */
export interface ModelOptions {
  /** Default `auto`. */
  device?: DeviceRequest | undefined;
  /**
   * Default `float32`. `bfloat16`: matrix operands of 16 bits (bfloat16 where the processor has it, else fixed point), within
   * 1e-2 of the logits' scale. The reference device computes in float64 whatever is asked.
   */
  precision?: Precision | undefined;
  /** Threads of one run, 1…1024. Default: `HPFORMER_THREADS`, else the container's CPU quota, else the cores. */
  threads?: number | undefined;
  /** Aborts loading. */
  signal?: AbortSignal | undefined;
  /** `propagate` (default): NaN and infinity go through to that sequence's outputs. `error`: in feeds, keys, pooled rows or logits they make the run fail. */
  nonFinite?: 'propagate' | 'error' | undefined;
  /** Switches exact rewrites off (or on), for tests and benchmarks. Default: all on. */
  rewrites?: Partial<Record<RewriteName, boolean>> | undefined;
  /** Most bytes of feeds, outputs and scratch memory for one run (default 2 GiB); beyond them it fails with `ERR_HPFORMER_LIMIT` before they are allocated. */
  maxBytes?: number | undefined;
}

/** Options of `HPformer.load`. */
export interface LoadOptions extends ModelOptions {
  /** All or part of the configuration. Beats the one inside the file, which beats inference from names and shapes. */
  config?: DeepPartial<HPformerConfig> | undefined;
}

/** Options of `HPformer.create`. */
export interface CreateOptions extends ModelOptions {
  /** Seed of the random weights, an integer 0…2^53−1; the same seed gives the same bits everywhere. Default 0. */
  seed?: number | undefined;
}

/** A typed array as a feed: taken only where the configuration and a batch of 1 leave one reading of its shape. */
export type BareArray = Float64Array | Float32Array | Int32Array | BigInt64Array | Uint8Array;

/** A feed: a tensor of this package, of onnxruntime or of transformers.js, or a typed array. */
export type FeedValue = TensorLike | BareArray;

/** What goes into a model; which of them a model takes follows from its configuration. B batch, L steps. */
export interface Feeds {
  /** `[B, L, F]` real (float32, float64, float16, bfloat16). */
  features?: FeedValue | undefined;
  /** `[B, L]` integers (int32, int64, uint8), each 0…vocabulary−1. */
  tokens?: FeedValue | undefined;
  /** `[B, L]` real; pixels come already normalised. */
  values?: FeedValue | undefined;
  /** Second sequence of a two-sequence model, `[B, L2]`. */
  tokens2?: FeedValue | undefined;
  /** Second sequence of a two-sequence model, `[B, L2]`. */
  values2?: FeedValue | undefined;
  /** `[B]` integers. Over `padded`: the divisor of the mean readout, ≥ 1. Over `valid`: each sequence's own length, 1…L. */
  lengths?: FeedValue | undefined;
  /** As `lengths`, for the second sequence. */
  lengths2?: FeedValue | undefined;
  /** `[B]` integers: the step that readout `step` reads. Default: the last (valid) step. */
  step?: FeedValue | undefined;
  /** `[B, L]`: instead of `step`, the weights of a weighted sum over steps. */
  readoutWeights?: FeedValue | undefined;
}

/** A real-valued result: float32, or float64 on the reference device. */
export type RealTensor = Tensor<'float32' | 'float64'>;

/** Results by name; `segments` counts are int32, all else is real. */
export type Results<Name extends string = string> = {
  [K in Name]: K extends 'segments' | 'second.segments' ? Tensor<'int32'> : RealTensor;
};

/** What `run` returns when `outputs` is not given (`probabilities` is absent when the head's link is `none`). */
export type DefaultOutput = 'logits' | 'probabilities';

/** Names that `outputs` may hold; which of them apply follows from the configuration. */
export type OutputName =
  | DefaultOutput
  | 'pooled'
  | 'keys'
  | 'segments'
  | 'attention'
  | 'segmentAttention'
  | 'intraAttention'
  | 'second.pooled'
  | 'second.keys'
  | 'second.segments'
  | 'second.attention'
  | 'second.segmentAttention'
  | 'second.intraAttention';

/** Options of `runSync`. */
export interface RunSyncOptions<Name extends string = string> {
  /** Exactly these are returned. Default: `logits`, and `probabilities` where the head has a link. */
  outputs?: readonly Name[] | undefined;
}

/** Options of `run`. */
export interface RunOptions<Name extends string = string> extends RunSyncOptions<Name> {
  /** Aborts the run; the promise rejects with `signal.reason`, unchanged. */
  signal?: AbortSignal | undefined;
}

/** Options of `stream`. */
export interface StreamOptions<Name extends string = string> extends RunOptions<Name> {
  /** Batches in flight or waiting to be taken, 1…1024. Default 4. */
  concurrency?: number | undefined;
}

/** A shape to plan or warm up for. */
export interface Shape {
  /** Sequences, ≥ 1. */
  batch: number;
  /** Steps L of each, ≥ 1. */
  steps: number;
  /** Steps of the second sequence; default `steps`. Two-sequence models only. */
  steps2?: number | undefined;
}

/** The input shape that `plan` answers for. */
export interface PlanShape extends Shape {
  /** Steps of a sequence that the readout reads. Default: 1 for readout `step`, else all. */
  rows?: number | undefined;
}

/** Number of parameters: read by the forward, and trained (running statistics are not, dead upstream tensors were). */
export interface ParameterCount {
  used: number;
  trainable: number;
}

/** What one device of this machine offers, or why it does not. */
export interface DeviceInfo {
  /** `cpu`, `reference`, `cuda:0` … */
  id: string;
  kind: 'cpu' | 'reference' | 'cuda';
  /** Processor or device name. */
  name: string;
  available: boolean;
  /** Why it is not available; empty when it is. */
  reason: string;
  /** Bytes of device memory; 0 for the CPU. */
  memory: number;
  /** Instruction set level in use (cpu) or compute capability (cuda). */
  level: string;
  /** What {@link HPformer.precision} may be on it; empty where it is not available. */
  precisions: readonly (Precision | 'float64')[];
}
