import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';

/** Metadata key of the configuration in a safetensors file: JSON `{ "version": 1, "config": {...} }`. */
export const configKey = 'hpformer.config';

/** Version of that JSON; a file of a newer one is refused. */
const formatVersion = 1;

/** The configuration as the metadata string. */
export function writeConfigMetadata(config: HPformerConfig): string {
  return JSON.stringify({ version: formatVersion, config });
}

/**
 * The configuration that a file's metadata holds, not yet validated; undefined when it holds none.
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` when it is not readable or newer than this version.
 */
export function readConfigMetadata(metadata: Readonly<Record<string, string>>, where: string): unknown {
  const text = Object.hasOwn(metadata, configKey) ? metadata[configKey]! : undefined;
  if (text === undefined) return undefined;
  const fail = (message: string, cause?: unknown): never => {
    throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: metadata ${configKey}: ${message}`, { cause });
  };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    return fail('expected JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return fail(`expected { "version": ${formatVersion}, "config": {...} }, got ${describe(value)}`);
  }
  const { version, config, ...rest } = value as Record<string, unknown>;
  if (!Number.isInteger(version) || (version as number) < 1)
    return fail(`expected a format version, got ${describe(version)}`);
  if ((version as number) > formatVersion) {
    return fail(`format version ${version} was written by a newer hpformer; this one reads up to ${formatVersion}`);
  }
  const unknown = Object.keys(rest);
  if (unknown.length > 0) return fail(`unknown key ${describe(unknown[0])}`);
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    return fail(`expected a config object, got ${describe(config)}`);
  return config;
}
