/**
 * hpformer: HPformer models on the CPU and on CUDA, from typed TypeScript.
 * Everything exported here is the public API; nothing else is.
 */

export type { DeepPartial } from './config/merge';
export { type Preset, type PresetName, presets } from './config/presets';
export type { Segments } from './config/segments';
export type { Activation, HPformerConfig } from './config/types';
export { errorCodes, HPformerError, type HPformerErrorCode } from './errors';
export { devices } from './model/devices';
export type { GraphEdge, GraphNode, GraphNodeKind, ModelGraph } from './model/graph';
export { HPformer } from './model/hpformer';
export {
  type Kernel,
  type KernelDims,
  type KernelInputs,
  type KernelName,
  type KernelOptions,
  type KernelSignature,
  kernels,
} from './model/kernels';
export type { Plan, PlanJSON, PlanNode, PlanRewrite } from './model/plan';
export type { Source } from './model/stream';
export type {
  BareArray,
  CreateOptions,
  DefaultOutput,
  DeviceInfo,
  DeviceRequest,
  Feeds,
  FeedValue,
  LoadOptions,
  ModelOptions,
  OutputName,
  ParameterCount,
  PlanShape,
  Precision,
  RealTensor,
  Results,
  RewriteName,
  RunOptions,
  RunSyncOptions,
  Shape,
  StreamOptions,
} from './model/types';
export { Tensor, type TensorData, type TensorDataMap, type TensorLike, type TensorType } from './tensor/tensor';
