/** The families of state-dict names that are understood; `own` is the canonical one. */
export type NameFamily = 'own' | 'health' | 'longRange';

/** What a state-dict key is: a parameter by canonical name, a tensor that no forward pass reads, or unknown. */
export type KeyMeaning = { parameter: string } | 'dead' | 'unknown';

const norm = 'weight|bias|mean|variance';
const ownNames = new RegExp(
  `^(embedding\\.(weight|bias)|positions\\.weight|embeddingNorm\\.(weight|bias)|tdhp\\.fusion\\.(weight|bias)|layers\\.(0|[1-9]\\d{0,3})\\.(output\\.weight|norm[12]\\.(${norm})|feedForward\\.(weight|bias))|head\\.layers\\.(0|[1-9]\\d?)\\.(weight|bias)|head\\.output\\.(weight|bias))$`,
);

const healthNames: Record<string, string> = {
  'core_model.embed_func.weight': 'embedding.weight',
  'core_model.embed_func.bias': 'embedding.bias',
  'core_model.find_kv_block_.fusion_lin.weight': 'tdhp.fusion.weight',
  'core_model.find_kv_block_.fusion_lin.bias': 'tdhp.fusion.bias',
  'linear.weight': 'head.output.weight',
  'linear.bias': 'head.output.bias',
};

const healthLayer = /^core_model\.core\.(0|[1-9]\d{0,3})\.(.+)$/;
const healthLayerNames: Record<string, string> = {
  'qkvatt.output_linear.weight': 'output.weight',
  'mlp1.weight': 'feedForward.weight',
  'mlp1.bias': 'feedForward.bias',
  'norm1.weight': 'norm1.weight',
  'norm1.bias': 'norm1.bias',
  'norm2.weight': 'norm2.weight',
  'norm2.bias': 'norm2.bias',
};
const healthDead = new Set(Object.keys(healthLayerNames).map((name) => `core_model.encoderlayer.${name}`));

const longRangePrefix = 'encoder.encoder.';
const longRangeNames: Record<string, string> = {
  'embed_tokens.weight': 'embedding.weight',
  'embed_tokens.bias': 'embedding.bias',
  'embed_positions.weight': 'positions.weight',
  'emb_layer_norm.weight': 'embeddingNorm.weight',
  'emb_layer_norm.bias': 'embeddingNorm.bias',
  'tdhp.fusion_lin.weight': 'tdhp.fusion.weight',
  'tdhp.fusion_lin.bias': 'tdhp.fusion.bias',
};
const longRangeLayer = /^layers\.(0|[1-9]\d{0,3})\.(.+)$/;
const longRangeLayerNames: Record<string, string> = {
  'self_attn.output_linear.weight': 'output.weight',
  'fc1.weight': 'feedForward.weight',
  'fc1.bias': 'feedForward.bias',
};
const longRangeNorm = /^(self_attn_layer_norm|final_layer_norm)(\.norm)?\.([a-z_]+)$/;
const sequenceNormNames: Record<string, string> = {
  weight: 'weight',
  bias: 'bias',
  scalar: 'weight',
  running_mean: 'mean',
  running_var: 'variance',
};
const classifier = /^classifier\.(0|[1-9]\d?)\.0\.(weight|bias)$/;

function own<T>(table: Record<string, T>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

const as = (parameter: string | undefined): KeyMeaning => (parameter === undefined ? 'unknown' : { parameter });

/** Reference section 4. */
function healthKey(key: string): KeyMeaning {
  if (healthDead.has(key)) return 'dead';
  const layer = healthLayer.exec(key);
  if (!layer) return as(own(healthNames, key));
  const name = own(healthLayerNames, layer[2]!);
  return as(name && `layers.${layer[1]}.${name}`);
}

/** Reference section 3.5. */
function longRangeKey(key: string): KeyMeaning {
  if (key === 'sentence_projection_layer.weight') return { parameter: 'head.output.weight' };
  const linear = classifier.exec(key);
  if (linear) return { parameter: `head.layers.${linear[1]}.${linear[2]}` };
  if (!key.startsWith(longRangePrefix)) return 'unknown';
  const name = key.slice(longRangePrefix.length);
  if (name === 'embed_positions._float_tensor') return 'dead';
  const layer = longRangeLayer.exec(name);
  if (!layer) return as(own(longRangeNames, name));
  const part = own(longRangeLayerNames, layer[2]!);
  if (part) return { parameter: `layers.${layer[1]}.${part}` };
  const normed = longRangeNorm.exec(layer[2]!);
  if (!normed) return 'unknown';
  const [, which, sequenceNorm, leaf] = normed;
  if (sequenceNorm && leaf === 'num_batches_tracked') return 'dead';
  // The plain layout is a LayerNorm, whatever norm_type said (reference 3.4).
  const leafName = sequenceNorm || leaf === 'weight' || leaf === 'bias' ? own(sequenceNormNames, leaf!) : undefined;
  return as(leafName && `layers.${layer[1]}.${which === 'final_layer_norm' ? 'norm2' : 'norm1'}.${leafName}`);
}

/** Which family of names a state dict is written in, by the first key that only one of them has. */
export function nameFamilyOf(keys: Iterable<string>): NameFamily {
  for (const key of keys) {
    if (key.startsWith('core_model.')) return 'health';
    if (key.startsWith(longRangePrefix) || key === 'sentence_projection_layer.weight') return 'longRange';
  }
  return 'own';
}

/** What one key of a state dict of this family means. */
export function meaningOf(family: NameFamily, key: string): KeyMeaning {
  if (family === 'health') return healthKey(key);
  if (family === 'longRange') return longRangeKey(key);
  return ownNames.test(key) ? { parameter: key } : 'unknown';
}
