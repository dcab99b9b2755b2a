/**
 * A named set of malformed files, most made from a good one by one change, handed to the public door. Every one gives the code
 * that is written beside it, and nothing else happens. Findings of the fuzzers are kept in test/fuzz/findings.
 */
import { HPformer, presets } from '../../src';
import { initialWeights } from '../../src/checkpoint/init';
import { readSafetensors } from '../../src/checkpoint/safetensors';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { validateConfig } from '../../src/config/validate';
import { discretize, Normalizer, readListFile } from '../../src/data/health';
import { codeOf } from '../session/models';
import { dict, op, pickle, safetensors, tensor, torchLegacy, torchZip, zip } from '../unit/checkpoint/build';
import { bytesOf } from '../unit/checkpoint/support';

const config = validateConfig(
  presets.mortality({ layers: 1, hidden: 4, heads: 2, norm: 'batchnorm', embedding: { size: 3 } }),
);
const good = serializeCheckpoint(config, initialWeights(config, 1));

type Header = Record<string, Record<string, unknown>>;
const headerLength = Number(Buffer.from(good).readBigUInt64LE(0));
const header = (): Header => JSON.parse(Buffer.from(good.subarray(8, 8 + headerLength)).toString());
const data = () => Buffer.from(good.subarray(8 + headerLength));

/** The good file with a changed header, the data as it was. */
const withHeader = (change: (header: Header) => void): Uint8Array => {
  const changed = header();
  change(changed);
  return safetensors(changed, data());
};
/** The good file with a changed entry of one tensor. */
const withEntry = (name: string, entry: Record<string, unknown>) =>
  withHeader((all) => {
    all[name] = { ...all[name], ...entry };
  });
/** The good file with other bytes for one tensor. */
const withValue = (name: string, at: number, value: number) => {
  const bytes = data();
  bytes.writeFloatLE(value, (header()[name]!.data_offsets as number[])[0]! + 4 * at);
  return safetensors(header(), bytes);
};
const withConfig = (change: (config: Record<string, never>) => unknown) =>
  withHeader((all) => {
    const parsed = JSON.parse(all.__metadata__!['hpformer.config'] as string);
    const changed = change(parsed);
    all.__metadata__!['hpformer.config'] = typeof changed === 'string' ? changed : JSON.stringify(changed ?? parsed);
  });

const FILE = 'ERR_HPFORMER_FILE';
const CHECKPOINT = 'ERR_HPFORMER_CHECKPOINT';
const CONFIG = 'ERR_HPFORMER_CONFIG';
const INPUT = 'ERR_HPFORMER_INPUT';
/** Files that must not load, each with the one code that says why. */
const files: [name: string, bytes: Uint8Array, code: string][] = [];

// Bytes that are no checkpoint at all.
for (const [name, bytes] of Object.entries({
  'no bytes': Buffer.alloc(0),
  'one byte': Buffer.of(0),
  'a length only': Buffer.alloc(8),
  zeros: Buffer.alloc(4096),
  ones: Buffer.alloc(4096, 0xff),
  'a PNG signature': Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex'),
  'an ELF binary': Buffer.from('7f454c46020101000000000000000000', 'hex'),
  'a gzip stream': Buffer.from('1f8b0800000000000003030000000000', 'hex'),
  'an HDF5 file': Buffer.from('894844460d0a1a0a0000000000000000', 'hex'),
  text: Buffer.from('weights: none at all, sorry about that'),
  JSON: Buffer.from('{"config":{"hidden":4}}'),
  'an empty zip': zip([]),
}))
  files.push([`nothing: ${name}`, new Uint8Array(bytes), FILE]);

// Each tensor of the file, broken in each way.
for (const name of ['embedding.weight', 'tdhp.fusion.weight', 'layers.0.norm1.variance', 'head.output.weight']) {
  const { shape, data_offsets: offsets } = header()[name] as { shape: number[]; data_offsets: [number, number] };
  const entry = (more: Record<string, unknown>) => withEntry(name, more);
  files.push(
    [`${name}: left out of the header`, withHeader((all) => delete all[name]), FILE],
    [`${name}: dtype unknown`, entry({ dtype: 'F8_E4M3' }), FILE],
    [`${name}: dtype of another width`, entry({ dtype: 'F64' }), FILE],
    [`${name}: integers of the same width`, entry({ dtype: 'I32' }), CHECKPOINT],
    [`${name}: with its last axis split`, entry({ shape: [...shape, 1] }), CHECKPOINT],
    [`${name}: one more axis`, entry({ shape: [1, ...shape] }), CHECKPOINT],
    [`${name}: a row more than there is`, entry({ shape: [shape[0]! + 1, ...shape.slice(1)] }), FILE],
    [`${name}: a negative dim`, entry({ shape: shape.map((n) => -n) }), FILE],
    [`${name}: a dim of 2^53`, entry({ shape: [2 ** 53, ...shape.slice(1)] }), FILE],
    [`${name}: offsets shifted`, entry({ data_offsets: [offsets[0] + 4, offsets[1] + 4] }), FILE],
    [`${name}: offsets swapped`, entry({ data_offsets: [offsets[1], offsets[0]] }), FILE],
    [`${name}: offsets past the end`, entry({ data_offsets: [2 ** 40, 2 ** 40 + offsets[1] - offsets[0]] }), FILE],
    [
      `${name}: under another name`,
      withHeader((all) => {
        all[`${name}2`] = all[name]!;
        delete all[name];
      }),
      CHECKPOINT,
    ],
    [`${name}: a NaN`, withValue(name, 0, Number.NaN), CHECKPOINT],
    [`${name}: an infinity`, withValue(name, 1, Number.NEGATIVE_INFINITY), CHECKPOINT],
  );
}
files.push(['a negative variance', withValue('layers.0.norm2.variance', 2, -1), CHECKPOINT]);

// The configuration inside the file.
for (const [name, change] of Object.entries<(config: Record<string, never>) => unknown>({
  'not JSON': () => '{',
  'a number': () => '7',
  'a list': () => '[]',
  null: () => 'null',
  'another format version': (all) => ({ ...all, format: 99, version: 99 }),
  'deeply nested': () => `${'{"a":'.repeat(3000)}1${'}'.repeat(3000)}`,
  'no format version': ({ version: _, ...all }) => all,
  'a key beside the configuration': (all) => ({ ...all, hidden: 4 }),
  'no configuration': ({ config: _, ...all }) => all,
  'a list as configuration': (all) => ({ ...all, config: [] }),
}))
  files.push([`config in the file: ${name}`, withConfig(change), CHECKPOINT]);
for (const [name, change] of Object.entries<object>({
  'hidden 0': { hidden: 0 },
  'heads that do not divide': { heads: 3 },
  'an unknown key': { speed: 1 },
  'another norm': { norm: 'none' },
  'a readout unknown': { readout: 'last' },
})) {
  const changed = withConfig((all) => ({ ...all, config: { ...(all.config as unknown as object), ...change } }));
  files.push([`config in the file: ${name}`, changed, CONFIG]);
}

// Each rule of the safetensors format, broken alone.
const one = { dtype: 'F32', shape: [1], data_offsets: [0, 4] };
const raw = (text: string | Buffer, bytes = 4, length?: bigint) => safetensors(text, new Uint8Array(bytes), length);
const lone = (entry: object) => safetensors({ w: { ...one, ...entry } }, new Uint8Array(4));
const text = JSON.stringify({ w: one });
for (const [name, bytes] of Object.entries({
  'a header of 2^64 - 1 bytes': raw(text, 4, 2n ** 64n - 1n),
  'a header of 2^63 bytes': raw(text, 4, 2n ** 63n),
  'a header above the cap of the format': raw(text, 4, 100_000_001n),
  'a header one byte longer than the file': raw(text, 4, BigInt(text.length + 5)),
  'a header one byte short': raw(text, 4, BigInt(text.length - 1)),
  'a header with an end of its own and more': raw(`${text}{}`),
  'a blank before the header': raw(` ${text}`),
  'a byte order mark': raw(`\ufeff${text}`),
  'UTF-16': raw(Buffer.from(text, 'utf16le')),
  'bad UTF-8 in a name': raw(Buffer.from(text.replace('w', '\xff'), 'latin1')),
  'single quotes': raw(text.replaceAll('"', "'")),
  'a comment': raw(`{/* w */${text.slice(1)}`),
  'a comma at the end': raw(text.replace(/}$/, ',}')),
  'a name twice': raw(`${text.slice(0, -1)},${text.slice(1)}`),
  'a name twice, once in escapes': raw(`${text.slice(0, -1)},${text.slice(1).replace('w', '\\u0077')}`),
  'a field twice': raw(text.replace('"shape"', '"dtype":"F32","shape"')),
  'nesting of 1000 levels': raw(`${'{"a":'.repeat(1000)}1${'}'.repeat(1000)}`),
  'more than 65,536 values': raw(`{"w":[${'0,'.repeat(2 ** 16)}0]}`),
  'more than 65,536 objects': raw(`{"w":[${'{},'.repeat(2 ** 16)}{}]}`),
  'more than 49,152 tensors': raw(
    `{${Array.from({ length: 3 * 2 ** 14 + 1 }, (_, i) => `"${i}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`)}}`,
  ),
  'metadata of a number': raw('{"__metadata__":1}', 0),
  'metadata with a number': raw('{"__metadata__":{"a":1}}', 0),
  'a tensor of null': raw('{"w":null}', 0),
  'a field more': lone({ strides: [1] }),
  'no dtype': lone({ dtype: undefined }),
  'no shape': lone({ shape: undefined }),
  'no offsets': lone({ data_offsets: undefined }),
  'a dtype of the prototype': lone({ dtype: 'constructor' }),
  'a dim as text': lone({ shape: ['1'] }),
  'a dim of one half': lone({ shape: [0.5, 2] }),
  'dims whose product leaves 2^53': lone({ shape: [2 ** 32, 2 ** 32] }),
  'dims whose product wraps to 1 in 64 bits': lone({ shape: [2 ** 32, 2 ** 32 + 1] }),
  'a rank of 1000': lone({ shape: Array(1000).fill(1) }),
  'three offsets': lone({ data_offsets: [0, 2, 4] }),
  'a negative offset': lone({ data_offsets: [-4, 0] }),
  'offsets of 2^53': lone({ data_offsets: [2 ** 53, 2 ** 53 + 4] }),
  'two tensors on the same bytes': safetensors({ v: one, w: one }, new Uint8Array(4)),
  'two tensors that overlap': safetensors({ v: one, w: { ...one, data_offsets: [2, 6] } }, new Uint8Array(6)),
  'a gap between tensors': safetensors({ v: one, w: { ...one, data_offsets: [8, 12] } }, new Uint8Array(12)),
  'a gap before the first': safetensors({ w: { ...one, data_offsets: [4, 8] } }, new Uint8Array(8)),
  'bytes after the last': safetensors({ w: one }, new Uint8Array(5)),
  'an empty tensor past the end': safetensors({ w: { ...one, shape: [0], data_offsets: [4, 4] } }),
}))
  files.push([`safetensors: ${name}`, bytes, FILE]);
files.push(
  ['safetensors: no tensor', safetensors({}), CHECKPOINT],
  ['safetensors: metadata only', safetensors({ __metadata__: { format: 'pt' } }), CHECKPOINT],
  ['safetensors: a tensor of no model', safetensors({ w: one }, new Uint8Array(4)), CHECKPOINT],
);

// The configuration beside the file.
const beside: [name: string, config: unknown][] = [
  ['a string', 'mortality'],
  ['a list', []],
  ['an unknown key', { speed: 1 }],
  ['__proto__ as a key', JSON.parse('{"__proto__":{"hidden":4}}')],
  ['hidden not divided by heads', { hidden: 4, heads: 3 }],
  ['hidden as text', { hidden: '4' }],
  ['hidden as a fraction', { hidden: 4.5 }],
  ['hidden NaN', { hidden: Number.NaN }],
  ['hidden infinite', { hidden: Number.POSITIVE_INFINITY }],
  ['no layers', { layers: 0 }],
  ['too many layers', { layers: 2 ** 31 }],
  ['another activation', { activation: 'tanh' }],
  ['another norm', { norm: 'instancenorm' }],
  ['another rule', { segments: { rule: 'mine' } }],
  ['paper with times 2', { segments: { rule: 'paper', times: 2 } }],
  ['another pooling', { segments: { pooling: 'sum' } }],
  ['segments null', { segments: null }],
  ['another readout', { readout: 'first' }],
  ['three sequences', { sequences: 3 }],
  ['two sequences with readout step', { sequences: 2 }],
  ['no labels', { head: { labels: 0 } }],
  ['names that are not the labels', { head: { labels: 1, names: ['a', 'b'] } }],
  ['another link', { head: { link: 'tanh' } }],
  ['head layers as an object', { head: { layers: {} } }],
  ['embedding without a kind', { embedding: { size: 3, kind: 7 } }],
  ['positions unknown', { positions: { kind: 'rotary' } }],
  ['learned positions without maximum', { positions: { kind: 'learned', maximum: -1 } }],
];

// PyTorch files.
const weight = tensor({ count: 1, dims: [1], strides: [1] });
const storage = { 0: new Uint8Array(4) };
const root = dict({ w: weight });
const calls = (name: string) => torchZip(Buffer.concat([op.global(name), op.mark, op.text('id'), op.tuple, op.reduce]));
for (const name of [
  'os.system',
  'posix.system',
  'builtins.eval',
  'builtins.exec',
  'subprocess.Popen',
  'torch.load',
  'numpy.core.multiarray._reconstruct',
  '__builtin__.getattr',
  'importlib.import_module',
  'webbrowser.open',
])
  files.push([`torch: a pickle that calls ${name}`, calls(name), FILE]);
files.push(
  ['torch: no member', zip([['top/version', new Uint8Array(2)]]), FILE],
  ['torch: a compressed member', zip([['top/data.pkl', pickle(root), { method: 8 }]]), FILE],
  ['torch: an encrypted member', zip([['top/data.pkl', pickle(root), { flags: 9 }]]), FILE],
  ['torch: a wrong CRC', zip([['top/data.pkl', pickle(root), { crc: 1 }]]), FILE],
  ['torch: a member larger than the file', zip([['top/data.pkl', pickle(root), { size: 2 ** 31 }]]), FILE],
  ['torch: a header past the end', zip([['top/data.pkl', pickle(root), { header: 2 ** 30 }]]), FILE],
  ['torch: zip64 sizes of 2^52', zip([['top/data.pkl', pickle(root), { zip64: true, size: 2 ** 52 }]]), FILE],
  ['torch: a directory offset past the end', zip([['top/data.pkl', pickle(root)]], { offset: 2 ** 30 }), FILE],
  ['torch: a directory count of 65535', zip([['top/data.pkl', pickle(root)]], { count: 65534 }), FILE],
  ['torch: another disk', zip([['top/data.pkl', pickle(root)]], { disk: 1 }), FILE],
  ['torch: an absolute member', zip([['/etc/passwd', pickle(root)]]), FILE],
  ['torch: a member above the top', zip([['../../data.pkl', pickle(root)]]), FILE],
  ['torch: names that differ', zip([['top/data.pkl', pickle(root), { localName: 'top/other.pkl' }]]), FILE],
  ['torch: a pickle without an end', zip([['top/data.pkl', pickle(root).subarray(0, 20)]]), FILE],
  ['torch: an empty pickle', zip([['top/data.pkl', new Uint8Array(0)]]), FILE],
  ['torch: a stack that underflows', torchZip(Buffer.concat([op.tuple, op.setItems])), FILE],
  ['torch: more than 131,072 objects', torchZip(Buffer.concat([op.list, Buffer.from(']a'.repeat(2 ** 17))])), FILE],
  ['torch: a memo that is empty', torchZip(op.get(9)), FILE],
  ['torch: marks without end', torchZip(Buffer.alloc(200_000, '(')), FILE],
  ['torch: a storage that is missing', torchZip(root), FILE],
  ['torch: a storage too small', torchZip(root, { 0: new Uint8Array(3) }), FILE],
  ['torch: a state dict of a number', torchZip(op.integer(1)), CHECKPOINT],
  ['torch: parameters of no model', torchZip(root, storage), CHECKPOINT],
  ['torch: legacy of another protocol', torchLegacy(root, [['0', 1, new Uint8Array(4)]], { protocol: 7 }), FILE],
  ['torch: legacy and big-endian', torchLegacy(root, [['0', 1, new Uint8Array(4)]], { little: false }), FILE],
  ['torch: legacy with a count of 2^52', torchLegacy(root, [['0', 2 ** 52, new Uint8Array(4)]]), FILE],
  ['torch: legacy cut in its data', bytesOf('ckpt_health_ihmp.legacy.pt').subarray(0, -7), FILE],
  ['torch: zip cut in its directory', bytesOf('ckpt_health_ihmp.zip.pt').subarray(0, -7), FILE],
);

const load = async (bytes: Uint8Array, over?: unknown) =>
  (await HPformer.load(bytes, { device: 'cpu', ...(over === undefined ? {} : { config: over as never }) })).dispose();

test('the file that all are made from is good, and survives being written again', async () => {
  expect(await codeOf(() => load(good))).toBe('ok');
  expect(await codeOf(() => load(safetensors(header(), data())))).toBe('ok');
  expect(await codeOf(() => load(good, { segments: { over: 'valid' } }))).toBe('ok');
  expect(readSafetensors(good).tensors.size).toBeGreaterThan(10);
});

test('there are at least 120 of them, each with a name of its own and the code of an error', () => {
  const names = files.map(([name]) => name);
  expect(names.length).toBeGreaterThanOrEqual(120);
  expect(new Set(names).size).toBe(names.length);
  expect(new Set(files.map(([, , code]) => code))).toEqual(new Set([FILE, CHECKPOINT, CONFIG]));
});

describe(`${files.length} files, each with its code`, () => {
  test.each(files)('%s', async (_, bytes, code) => {
    const copy = Buffer.from(bytes);
    expect(await codeOf(() => load(bytes))).toBe(code);
    expect(Buffer.from(bytes).equals(copy)).toBe(true);
  });
});

describe(`${beside.length} configurations beside a good file`, () => {
  test.each(beside)('%s', async (_, over) => {
    expect(await codeOf(() => load(good, over))).toBe(CONFIG);
  });
});

/** The good file's tensors as PyTorch would write them. */
const state = Object.entries(header()).filter(([name]) => name !== '__metadata__') as [
  string,
  { shape: number[]; data_offsets: [number, number] },
][];
const stateDict = dict(
  Object.fromEntries(
    state.map(
      (
        [
          name,
          {
            shape,
            data_offsets: [begin, end],
          },
        ],
        key,
      ) => {
        const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
        return [name, tensor({ key: String(key), count: (end - begin) / 4, dims: shape, strides })];
      },
    ),
  ),
);
const storages = state.map(
  ([
    ,
    {
      data_offsets: [begin, end],
    },
  ]) => new Uint8Array(data().subarray(begin, end)),
);
const formats: [name: string, bytes: Uint8Array, whole: string][] = [
  ['safetensors', good, 'ok'],
  ['.pt, zip', torchZip(stateDict, Object.fromEntries(storages.entries())), 'ok'],
  // Sound, but of no model: each cut is read up to its end, which takes long for a whole model.
  ['.pt, legacy', torchLegacy(root, [['0', 1, new Uint8Array(4)]]), CHECKPOINT],
];
test.each(formats)('%s, a small file cut at every byte: no part of it is a file', async (_, bytes, whole) => {
  expect(await codeOf(() => load(bytes, config))).toBe(whole);
  const codes = new Set<string>();
  for (let length = 0; length < bytes.length; length++) {
    codes.add(await codeOf(() => load(bytes.subarray(0, length), config)));
  }
  expect([...codes]).toEqual([FILE]);
});

const tables: [name: string, read: () => unknown][] = [
  ['episode: no header', () => discretize('')],
  ['episode: no Hours', () => discretize('Time,Glucose\n1,2\n')],
  ['list: a column twice', () => readListFile('stay,y_true,y_true\nx,0,1\n', 'listfile.csv')],
  ['episode: an unknown column', () => discretize('Hours,Speed\n1,2\n')],
  ['episode: a row too long', () => discretize('Hours,Glucose\n1,2,3\n')],
  ['episode: a quote without end', () => discretize('Hours,Glucose\n1,"2\n')],
  ['episode: a number that is none', () => discretize('Hours,Glucose\n1,fast\n')],
  ['episode: an hour that is none', () => discretize('Hours,Glucose\nnoon,2\n')],
  ['list: no header', () => readListFile('', 'listfile.csv')],
  ['list: another header', () => readListFile('a,b\n1,2\n', 'listfile.csv')],
  ['list: a row too short', () => readListFile('stay,period_length,y_true\nx\n', 'listfile.csv')],
  ['list: a file outside its folder', () => readListFile('stay,y_true\n../x.csv,1\n', 'listfile.csv')],
  ['list: a file by its full path', () => readListFile('stay,y_true\n/etc/x.csv,1\n', 'listfile.csv')],
  ['list: a file above a folder', () => readListFile('stay,y_true\na/../../x.csv,1\n', 'listfile.csv')],
  ['normalizer: not JSON', () => Normalizer.fromJSON('{')],
  ['normalizer: null', () => Normalizer.fromJSON('null')],
  ['normalizer: uneven', () => Normalizer.fromJSON('{"means":[1,2],"stds":[1]}')],
  ['normalizer: a zero', () => Normalizer.fromJSON('{"means":["a"],"stds":[1]}')],
];
test.each(tables)('%s', async (_, read) => {
  expect(await codeOf(read)).toBe(INPUT);
});
