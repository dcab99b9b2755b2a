/**
 * Every error code of the package, with what it means. The README's table is generated from this one.
 */
export const errorCodes = {
  ERR_HPFORMER_SHAPE: 'A tensor, feed or parameter has the wrong rank or size.',
  ERR_HPFORMER_TYPE: 'A value or tensor has the wrong type.',
  ERR_HPFORMER_RANGE: 'A number lies outside its allowed range (token id, length, step, option).',
  ERR_HPFORMER_INPUT:
    'A feed, output name or data row does not fit the model (missing, unknown, contradictory, non-finite).',
  ERR_HPFORMER_CONFIG: 'A model configuration is incomplete, unknown or contradictory.',
  ERR_HPFORMER_CHECKPOINT: 'A checkpoint is malformed, lacks tensors, or holds unknown ones.',
  ERR_HPFORMER_FILE: 'A file cannot be read or written, or is not what its format requires.',
  ERR_HPFORMER_DEVICE: 'A device, its driver or its precision is not available, or the device was lost.',
  ERR_HPFORMER_LIMIT: 'A request exceeds a limit (queue, bytes) and was refused before any work.',
  ERR_HPFORMER_MEMORY: 'Memory could not be allocated.',
  ERR_HPFORMER_DISPOSED: 'The model was disposed.',
  ERR_HPFORMER_ADDON: 'The native addon cannot be loaded on this machine.',
  ERR_HPFORMER_INTERNAL: 'A defect of hpformer itself; please report it.',
} as const;

/** One of the stable error codes. */
export type HPformerErrorCode = keyof typeof errorCodes;

/**
 * The one error class of the package: a stable {@link code} and a message that says where, what was expected, what came.
 */
export class HPformerError extends Error {
  override readonly name = 'HPformerError';
  /** Stable code, one of {@link errorCodes}. */
  readonly code: HPformerErrorCode;

  constructor(code: HPformerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** What V8 says when it cannot allocate an array, and the addon when it runs out of memory in front of a job. */
const memoryMessages = /out of memory|allocation failed|Invalid (typed )?array (buffer )?length/i;

/** An error of ours for what V8 or the addon throws without a code; any other comes back as it is. */
export function codedError(where: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof HPformerError) return error;
  const code = memoryMessages.test(error.message)
    ? 'ERR_HPFORMER_MEMORY'
    : error.message === 'hpformer: this environment is closing'
      ? 'ERR_HPFORMER_DISPOSED'
      : undefined;
  return code === undefined ? error : new HPformerError(code, `${where}: ${error.message}`, { cause: error });
}
