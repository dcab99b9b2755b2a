/**
 * The golden files of the authors' code (test/fixtures/reference) as models, feeds and expectations of this package.
 * Its own small reader, so that a defect of the package's reader cannot hide one of its writer.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HPformer, type HPformerConfig, type LoadOptions, Tensor } from '../../src';
import type { Feeds } from '../../src/model/types';

export const folder = join(__dirname, '..', 'fixtures', 'reference');

export interface Raw {
  type: 'F64' | 'F32' | 'I64';
  dims: number[];
  bytes: Buffer;
}

export interface Expectation {
  /** Name in `trace`, and in `outputs` of `run` where that knows it. */
  name: string;
  values: Float64Array;
  dims: number[];
}

export interface Fixture {
  name: string;
  kind: 'forward' | 'checkpoint';
  config: HPformerConfig;
  steps: number;
  batch: number;
  feeds: Feeds;
  /** The authors' code in float64. */
  exact: Expectation[];
  /** The authors' float32 run: the intermediates that have no float64 twin. */
  stages: Expectation[];
  /** File name → format, for checkpoint fixtures. */
  checkpoints: Record<string, string>;
  /** A safetensors file of the state dict under upstream's names, as the authors' code would save it. */
  stateDict(): Uint8Array;
}

/** Loads a fixture's weights through the public door. */
export function loadFixture(fixture: Fixture, options: Omit<LoadOptions, 'config'> = {}): Promise<HPformer> {
  return HPformer.load(fixture.stateDict(), { ...options, config: fixture.config });
}

/** Names of all forward and checkpoint fixtures. */
export function fixtureNames(): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.safetensors'))
    .map((file) => file.slice(0, -'.safetensors'.length))
    .sort();
}

export function readFixture(name: string): Fixture {
  const { metadata, tensors } = readSafetensors(join(folder, `${name}.safetensors`));
  const upstream = JSON.parse(metadata.config!) as Record<string, unknown>;
  const health = upstream.family === 'health';
  const config = health ? healthConfig(upstream) : longRangeConfig(upstream);
  const expectations = (prefix: string) =>
    [...tensors].flatMap(([key, raw]): Expectation[] => {
      if (!key.startsWith(prefix)) return [];
      const ours = nameOf(key.slice(prefix.length), upstream);
      return ours === undefined ? [] : [{ name: ours, values: numbers(raw), dims: raw.dims }];
    });
  const exact = expectations('expected64.');
  const exactNames = new Set(exact.map((e) => e.name));
  return {
    name,
    kind: metadata.kind as Fixture['kind'],
    config,
    steps: upstream.length as number,
    batch: upstream.batch as number,
    feeds: health ? healthFeeds(upstream, tensors) : longRangeFeeds(upstream, tensors),
    exact,
    stages: expectations('expected.').filter((e) => !exactNames.has(e.name)),
    checkpoints: JSON.parse(metadata.checkpoints ?? '{}'),
    stateDict: () => writeStateDict(tensors),
  };
}

/** Our name for one of the authors' tensors; undefined where this model has no such output. */
function nameOf(name: string, upstream: Record<string, unknown>): string | undefined {
  if (name.startsWith('src1.')) return `second.${nameOf(name.slice(5), upstream)}`;
  if (/^layer\.\d+$/.test(name)) return name;
  if (name.startsWith('classifier.')) return name.replace('classifier', 'head');
  const everyStep = upstream.task === 'dp' || upstream.task === 'los';
  // The published length-of-stay head normalises over the batch; ours over the classes.
  if (upstream.task === 'los' && name === 'probs') return undefined;
  const names: Record<string, string | undefined> = {
    embed: 'embedded',
    segment_pool: 'segmentPool',
    extra_segment: 'extraSegment',
    intra_segment: 'intraSegment',
    k_comp: 'keys',
    cur_output: everyStep ? undefined : 'pooled',
    sentence_rep: 'pooled',
    encoder_out: 'encoded',
    logits: 'logits',
    probs: 'probabilities',
    probs_over_classes: 'probabilities',
  };
  if (!(name in names)) throw new Error(`fixture tensor ${name} has no name here`);
  return names[name];
}

function healthConfig(u: Record<string, unknown>): HPformerConfig {
  return {
    embedding: { kind: 'features', size: u.input_dim as number },
    positions: { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false },
    embeddingNorm: false,
    hidden: u.hidden_dim as number,
    heads: u.n_heads as number,
    layers: u.n_layers as number,
    tiedLayers: false,
    activation: 'relu',
    norm: 'layernorm',
    segments: { rule: 'upstream', times: 1, pooling: 'mean', steps: u.n_steps as number, over: 'padded' },
    readout: u.task === 'dp' || u.task === 'los' ? 'steps' : 'step',
    sequences: 1,
    head: { layers: [], labels: u.label_dim as number, bias: true, link: u.task === 'los' ? 'softmax' : 'sigmoid' },
  };
}

function longRangeConfig(u: Record<string, unknown>): HPformerConfig {
  const text = u.input_type === 'text';
  const sizes = Array.from({ length: u.classifier_layers as number }, () => ({
    size: u.classifier_out_dim as number,
    activation: u.classifier_activation_fn as HPformerConfig['activation'],
  }));
  return {
    embedding: text
      ? { kind: 'tokens', vocabulary: u.vocab_size as number, padding: u.padding_idx as number | null }
      : { kind: 'scalar' },
    positions: u.learned_pos
      ? { kind: 'learned', maximum: u.max_positions as number }
      : { kind: 'sinusoidal', layout: 'halves', scaleInput: true },
    embeddingNorm: u.encoder_normalize_before as boolean,
    hidden: u.embedding_dim as number,
    heads: u.num_heads as number,
    layers: u.num_layers as number,
    tiedLayers: u.tie_layer_weights as boolean,
    activation: u.activation_fn as HPformerConfig['activation'],
    // The plain layout ignores norm_type (reference 3.4).
    norm: u.norm_layout === 'plain' ? 'layernorm' : (u.norm_type as HPformerConfig['norm']),
    segments: {
      rule: 'upstream',
      times: u.k_times as number,
      pooling: u.pooling as 'mean' | 'max',
      steps: null,
      over: 'padded',
    },
    readout: 'mean',
    sequences: u.dual_input ? 2 : 1,
    head: { layers: sizes, labels: u.num_classes as number, bias: false, link: 'softmax' },
  };
}

type Tensors = Map<string, Raw>;

function healthFeeds(u: Record<string, unknown>, tensors: Tensors): Feeds {
  const features = toTensor(tensors.get('input.x')!);
  if (u.task === 'dp' || u.task === 'los') return { features };
  return { features, readoutWeights: toTensor(tensors.get('input.cur_mask')!) };
}

function longRangeFeeds(u: Record<string, unknown>, tensors: Tensors): Feeds {
  const main = u.input_type === 'text' ? 'tokens' : 'values';
  const feeds: Feeds = {
    [main]: toTensor(tensors.get('input.src_tokens')!),
    lengths: toTensor(tensors.get('input.src_lengths')!),
  };
  if (u.dual_input) {
    Object.assign(feeds, {
      [`${main}2`]: toTensor(tensors.get('input.src1_tokens')!),
      lengths2: toTensor(tensors.get('input.src1_lengths')!),
    });
  }
  return feeds;
}

function toTensor({ type, dims, bytes }: Raw): Tensor {
  const copy = new Uint8Array(bytes).buffer;
  if (type === 'I64') return new Tensor('int64', new BigInt64Array(copy), dims);
  if (type === 'F64') return new Tensor('float64', new Float64Array(copy), dims);
  return new Tensor('float32', new Float32Array(copy), dims);
}

function numbers(raw: Raw): Float64Array {
  return Float64Array.from(toTensor(raw).data as ArrayLike<number | bigint>, Number);
}

export function readSafetensors(path: string): { metadata: Record<string, string>; tensors: Tensors } {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...header } = JSON.parse(file.toString('utf8', 8, 8 + length));
  const tensors: Tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    const { dtype, shape, data_offsets } = entry as {
      dtype: Raw['type'];
      shape: number[];
      data_offsets: [number, number];
    };
    const bytes = file.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
    tensors.set(name, { type: dtype, dims: shape, bytes });
  }
  return { metadata, tensors };
}

function writeStateDict(tensors: Tensors): Uint8Array {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let offset = 0;
  for (const [name, { type, dims, bytes }] of tensors) {
    if (!name.startsWith('param.')) continue;
    header[name.slice('param.'.length)] = { dtype: type, shape: dims, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
    parts.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, ' ');
  json.copy(padded);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([size, padded, ...parts]);
}

/** Largest |got − expected| / (absolute + relative·|expected|); at most 1 is within the bound. NaN counts as infinite. */
export function excess(got: ArrayLike<number>, expected: ArrayLike<number>, absolute: number, relative = 0): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < got.length; i++) {
    const ratio = Math.abs(got[i]! - expected[i]!) / (absolute + relative * Math.abs(expected[i]!));
    if (!(ratio <= worst)) worst = Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio;
  }
  return worst;
}

/** RMS error of logits over max(1, RMS of the expected logits): design section 8 bounds it by 1e-2 in bfloat16. */
export function rmsError(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    error += (got[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return Math.sqrt(error / expected.length) / Math.max(1, Math.sqrt(size / expected.length));
}

/** Rows of a small CSV text without quotes, its header left out. */
export function csvRows(text: string): string[][] {
  const [, ...lines] = text.trim().split('\n');
  return lines.map((line) => line.split(','));
}
