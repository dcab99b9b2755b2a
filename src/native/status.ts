import { HPformerError, type HPformerErrorCode } from '../errors';

/** In the order of StatusCode in binding/contract/status.h. */
const codes: readonly (HPformerErrorCode | undefined)[] = [
  undefined,
  'ERR_HPFORMER_SHAPE',
  'ERR_HPFORMER_TYPE',
  'ERR_HPFORMER_RANGE',
  'ERR_HPFORMER_INPUT',
  'ERR_HPFORMER_CONFIG',
  'ERR_HPFORMER_CHECKPOINT',
  'ERR_HPFORMER_FILE',
  'ERR_HPFORMER_DEVICE',
  'ERR_HPFORMER_LIMIT',
  'ERR_HPFORMER_MEMORY',
  'ERR_HPFORMER_DISPOSED',
  'ERR_HPFORMER_INTERNAL',
];

/** A job that was cancelled: becomes the signal's reason, not an HPformerError. */
export const statusAborted = 13;

/** The error of a native status other than ok. */
export function statusError(code: number, message: string): HPformerError {
  const known = codes[code];
  return known === undefined
    ? new HPformerError('ERR_HPFORMER_INTERNAL', `native status ${code}: ${message}`)
    : new HPformerError(known, message);
}
