import { readSafetensors, type WrittenTensor, writeSafetensors } from '../checkpoint/safetensors';
import { bundleHash, bundleKeys, checkSeal } from '../checkpoint/seal';
import type { StoredTensor } from '../checkpoint/tensors';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { checkFields, checkType, jsonText } from './check';

/** Version of the bundle's content; a file of a later one is refused. */
const bundleVersion = 1;

/** What a bundle carries beside configuration and weights. */
export interface BundleContent {
  format: 'hpformer-bundle';
  version: number;
  name: string;
  /** The preprocessing that the features belong to. */
  recipe: string;
  /** The recipe's numbers: every channel in order, with clip, transform, mean and scale. */
  features: unknown;
  /** What each output means, in order. */
  labels: string[];
  /** Where data and weights come from, licence, intended use, limits. */
  provenance: Record<string, unknown>;
}

/** A bundle, its hash checked. */
export interface Bundle extends BundleContent {
  /** SHA-256 (hex) of configuration, content and all tensors. */
  hash: string;
}

function fail(where: string, message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: ${message}`);
}

/** Levels of lists and objects that a bundle's content may have: what compares or copies it recurses. */
const deepest = 64;

/** Whether a JSON value has at most so many levels; level by level, since a recursion would end where it should judge. */
function nestsAtMost(value: unknown, levels: number): boolean {
  let level = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return false;
    level = level.flatMap((v) => (typeof v === 'object' && v !== null ? Object.values(v) : []));
  }
  return true;
}

function parseContent(where: string, text: string): BundleContent {
  let content: Partial<BundleContent> | null;
  try {
    content = JSON.parse(text);
  } catch {
    throw fail(where, `metadata ${bundleKeys.content}: expected JSON, got ${describe(text)}`);
  }
  if (content?.format !== 'hpformer-bundle')
    throw fail(where, `expected format "hpformer-bundle", got ${describe(content?.format)}`);
  if (content.version !== bundleVersion) {
    throw fail(where, `expected bundle version ${bundleVersion}, got ${describe(content.version)}`);
  }
  if (!nestsAtMost(content, deepest)) throw fail(where, `expected content of at most ${deepest} levels, got more`);
  const { name, recipe, features, labels, provenance } = content;
  if (typeof name !== 'string') throw fail(where, `name: expected a string, got ${describe(name)}`);
  if (typeof recipe !== 'string') throw fail(where, `recipe: expected a string, got ${describe(recipe)}`);
  if (typeof features !== 'object' || features === null)
    throw fail(where, `features: expected an object, got ${describe(features)}`);
  if (!Array.isArray(labels) || !labels.every((label) => typeof label === 'string')) {
    throw fail(where, `labels: expected an array of strings, got ${describe(labels)}`);
  }
  if (typeof provenance !== 'object' || provenance === null || Array.isArray(provenance)) {
    throw fail(where, `provenance: expected an object, got ${describe(provenance)}`);
  }
  return { format: 'hpformer-bundle', version: bundleVersion, name, recipe, features, labels, provenance };
}

/**
 * Reads what a safetensors file carries as a bundle, or undefined when it is a plain model file.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` when the bytes are not safetensors, `ERR_HPFORMER_CHECKPOINT` when the content is malformed,
 * of another version, or does not have the hash that the file names.
 */
export function readBundle(bytes: Uint8Array, where = 'bundle'): Bundle | undefined {
  checkType(where, bytes, 'bytes');
  const state = readSafetensors(bytes, where);
  const text = state.metadata[bundleKeys.content];
  if (text === undefined) return undefined;
  const content = parseContent(where, text);
  return { ...content, hash: checkSeal(state, where)! };
}

/**
 * Makes a bundle of a model file that this package wrote (it carries its configuration).
 *
 * @returns bytes of a safetensors file that `HPformer.load` also takes; the same input gives the same bytes.
 * @throws HPformerError as {@link readBundle}; `ERR_HPFORMER_TYPE` for arguments of other types.
 */
export function writeBundle(model: Uint8Array, content: Omit<BundleContent, 'format' | 'version'>): Uint8Array {
  checkType('bundle: model', model, 'bytes');
  checkFields('bundle: content', content, {});
  const { tensors, metadata } = readSafetensors(model);
  const { name, recipe, features, labels, provenance } = content;
  const all: BundleContent = {
    format: 'hpformer-bundle',
    version: bundleVersion,
    name,
    recipe,
    features,
    labels,
    provenance,
  };
  const text = jsonText('bundle: content', all);
  parseContent(typeof name === 'string' ? name : 'bundle', text);
  const { [bundleKeys.hash]: _, ...kept } = metadata;
  const withContent = { ...kept, [bundleKeys.content]: text };
  const hash = bundleHash({ tensors, metadata: withContent });
  return writeSafetensors(tensors as ReadonlyMap<string, StoredTensor & WrittenTensor>, {
    ...withContent,
    [bundleKeys.hash]: hash,
  });
}
