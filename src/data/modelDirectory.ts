import { createHash } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { isBytes, pathOf } from '../checkpoint/file';
import { HPformerError } from '../errors';
import { parseJsonText, readWhole, writeAtomically } from '../files';
import { describe } from '../tensor/shape';
import { type Bundle, readBundle } from './bundle';

/** Name of the manifest in a model directory. */
export const manifestName = 'hpformer.json';

/** Version of the manifest; a directory of a later one is refused. */
const manifestVersion = 1;

/** What makes a directory one unit: every file that belongs to the model, by hash. */
export interface Manifest {
  format: 'hpformer-model';
  version: number;
  name: string;
  /** File names in the directory. The weights file is a bundle: it says by itself all that the other two say for readers. */
  weights: string;
  config: string;
  features: string;
  /** The bundle's hash: configuration, recipe, provenance and weights together. */
  bundle: string;
  /** SHA-256 (hex) of each file. */
  files: Record<string, string>;
}

/** A model as found on disk, its hashes checked. */
export interface FoundModel {
  /** For messages: the path as given. */
  where: string;
  /** The weights file's bytes, for `HPformer.load`. */
  bytes: Uint8Array;
  /** Configuration, from the directory's config file; undefined for a single file, which carries its own (or needs one). */
  config?: unknown;
  /** Undefined for a plain model file. */
  bundle?: Bundle;
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

function wrong(where: string, message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: ${message}`);
}

const json = (where: string, bytes: Uint8Array) => parseJsonText(where, Buffer.from(bytes).toString('utf8'));

function parseManifest(where: string, value: unknown): Manifest {
  const manifest = (typeof value === 'object' && value !== null ? value : {}) as Partial<Manifest>;
  if (manifest.format !== 'hpformer-model')
    throw wrong(where, `expected format "hpformer-model", got ${describe(manifest.format)}`);
  if (manifest.version !== manifestVersion) {
    throw wrong(where, `expected version ${manifestVersion}, got ${describe(manifest.version)}`);
  }
  for (const key of ['name', 'weights', 'config', 'features', 'bundle'] as const) {
    if (typeof manifest[key] !== 'string')
      throw wrong(where, `${key}: expected a string, got ${describe(manifest[key])}`);
  }
  const { files } = manifest;
  if (typeof files !== 'object' || files === null)
    throw wrong(where, `files: expected an object, got ${describe(files)}`);
  for (const key of ['weights', 'config', 'features'] as const) {
    if (!Object.hasOwn(files, manifest[key]!))
      throw wrong(where, `files: expected a hash of ${describe(manifest[key])}, got none`);
  }
  for (const name of Object.keys(files)) {
    // A manifest may not reach outside its directory.
    if (name !== path.basename(name) || name === '..')
      throw wrong(where, `files: expected plain names, got ${describe(name)}`);
  }
  return manifest as Manifest;
}

/**
 * Loads a model directory (a manifest `hpformer.json` and the files it lists) and checks that it is the unit that was packed.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` when a file is missing or not JSON, `ERR_HPFORMER_CHECKPOINT` when a hash, a version, the
 * configuration or the feature recipe is not the one that the manifest and the weights file name.
 */
export async function loadModelDirectory(directory: string): Promise<FoundModel & { bundle: Bundle }> {
  const at = path.join(directory, manifestName);
  if (!(await fs.stat(at).catch(() => undefined))) {
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `${directory}: expected a model file, or a model directory with ${manifestName} in it, got a directory without`,
    );
  }
  const manifest = parseManifest(at, json(at, await readWhole(at)));
  const contents = new Map<string, Uint8Array>();
  for (const [name, expected] of Object.entries(manifest.files)) {
    const bytes = await readWhole(path.join(directory, name));
    const got = sha256(bytes);
    if (got !== expected)
      throw wrong(
        path.join(directory, name),
        `expected SHA-256 ${describe(expected)}, got ${got}; the model was changed`,
      );
    contents.set(name, bytes);
  }
  const bytes = contents.get(manifest.weights)!;
  const weights = path.join(directory, manifest.weights);
  const bundle = readBundle(bytes, weights);
  if (!bundle) throw wrong(weights, 'expected a bundle (weights with their feature recipe), got a plain model file');
  if (bundle.hash !== manifest.bundle)
    throw wrong(
      at,
      `bundle: expected ${describe(bundle.hash)} (of ${manifest.weights}), got ${describe(manifest.bundle)}`,
    );
  const features = json(path.join(directory, manifest.features), contents.get(manifest.features)!);
  if (!isDeepStrictEqual(features, bundle.features)) {
    throw wrong(
      path.join(directory, manifest.features),
      `expected the feature recipe inside ${manifest.weights}, got another one`,
    );
  }
  const config = json(path.join(directory, manifest.config), contents.get(manifest.config)!);
  return { where: directory, bytes, config, bundle };
}

/**
 * Finds a model by path, `file:` URL or bytes: a model directory, a bundle, or any checkpoint file.
 *
 * @throws HPformerError as {@link loadModelDirectory}.
 */
export async function findModel(source: string | URL | Uint8Array): Promise<FoundModel> {
  if (isBytes(source)) return withBundle('bytes', source);
  const file = pathOf(source);
  const stats = await fs.stat(file).catch((cause) => {
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected a model directory or file, got nothing there`, {
      cause,
    });
  });
  return stats.isDirectory() ? loadModelDirectory(file) : withBundle(file, await readWhole(file));
}

/**
 * What `HPformer.load` reads for a source: the weights of a model directory (its hashes checked), anything else unchanged.
 *
 * @throws HPformerError as {@link loadModelDirectory}.
 */
export async function weightsOf<T extends string | URL | Uint8Array>(source: T): Promise<T | Uint8Array> {
  if (isBytes(source)) return source;
  const file = pathOf(source);
  const stats = await fs.stat(file).catch(() => undefined);
  return stats?.isDirectory() ? (await loadModelDirectory(file)).bytes : source;
}

function withBundle(where: string, bytes: Uint8Array): FoundModel {
  // PyTorch files begin with "PK" (zip) or a pickle's 0x80; a safetensors header is JSON after eight bytes.
  const bundle = bytes[8] === 0x7b ? readBundle(bytes, where) : undefined;
  return bundle ? { where, bytes, bundle } : { where, bytes };
}

/** Writes the manifest of a directory whose weights, config and features files are in place. */
export async function writeManifest(
  directory: string,
  names: Pick<Manifest, 'weights' | 'config' | 'features'>,
): Promise<Manifest> {
  const files: Record<string, string> = {};
  for (const name of [names.config, names.features, names.weights]) {
    files[name] = sha256(await readWhole(path.join(directory, name)));
  }
  const bundle = readBundle(await readWhole(path.join(directory, names.weights)), names.weights);
  if (!bundle)
    throw wrong(names.weights, 'expected a bundle (weights with their feature recipe), got a plain model file');
  const manifest: Manifest = {
    format: 'hpformer-model',
    version: manifestVersion,
    name: bundle.name,
    ...names,
    bundle: bundle.hash,
    files,
  };
  await writeAtomically(path.join(directory, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
  return manifest;
}
