import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';

/** A PyTorch file that is not what its format requires, or needs more than the reader allows. */
export function refuse(where: string, message: string): never {
  throw new HPformerError('ERR_HPFORMER_FILE', `${where}: ${message}`);
}

/** A value from a pickle for an error message, without looking inside: a hostile list may contain itself. */
export function show(value: unknown): string {
  if (typeof value !== 'object' || value === null) return describe(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (value instanceof Map) return `a dict of ${value.size}`;
  return (value as { show?: string }).show ?? describe(value);
}
