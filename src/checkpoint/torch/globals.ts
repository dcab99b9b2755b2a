import type { ElementType } from '../tensors';
import type { GlobalKind } from './values';

const storages: Record<string, ElementType> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

/** Classes whose instances are kept as plain data: training arguments and bookkeeping beside the weights. */
const inert = [
  'argparse.Namespace',
  'torch.Size',
  'torch.device',
  'numpy.dtype',
  'numpy.core.multiarray.scalar',
  'numpy._core.multiarray.scalar',
  '_codecs.encode',
];

/**
 * Every global that a checkpoint may name. Naming one imports and calls nothing: each has a fixed meaning in unpickle.ts.
 */
export const allowedGlobals: ReadonlyMap<string, GlobalKind> = new Map<string, GlobalKind>([
  ['collections.OrderedDict', { does: 'dict' }],
  ['collections.defaultdict', { does: 'dict' }],
  ['torch._utils._rebuild_tensor', { does: 'tensor' }],
  ['torch._utils._rebuild_tensor_v2', { does: 'tensor' }],
  ['torch._utils._rebuild_parameter', { does: 'parameter' }],
  ...Object.entries(storages).map(([name, type]): [string, GlobalKind] => [`torch.${name}`, { does: 'storage', type }]),
  ...inert.map((name): [string, GlobalKind] => [name, { does: 'inert' }]),
]);
