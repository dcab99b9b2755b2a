/** Peak memory of loading: at most four times the file and 64 MiB above what the process had, for good files and for hostile ones. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { presets } from '../../src';
import { parameterShapes } from '../../src/checkpoint/names';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import type { WeightTensor } from '../../src/checkpoint/tensors';
import { validateConfig } from '../../src/config/validate';
import { notOn, root, testUnless, underSanitizer } from '../skips';
import { op, safetensors, torchZip, zip } from '../unit/checkpoint/build';

const FILE = 'ERR_HPFORMER_FILE';
const CHECKPOINT = 'ERR_HPFORMER_CHECKPOINT';
const megabyte = 2 ** 20;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-peak-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Loads a file in a process of its own: the outcome, and by how much its largest resident memory grew, in MiB. */
function load(file: string, device = 'cpu'): { code: string; grown: number; bound: number } {
  // VmHWM begins with the program; resourceUsage().maxRSS would begin with that of the process that started it.
  const script = `
const { readFileSync } = require('node:fs');
const hp = require(${JSON.stringify(root)});
hp.devices(); // the addon itself
const peak = () => Number(/VmHWM:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
const before = peak();
hp.HPformer.load(process.argv[1], { device: process.argv[2] }).then(() => 'ok', (error) => error.code ?? String(error))
  .then((code) => console.log(JSON.stringify({ code, grown: peak() - before })));`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script, file, device], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, '']);
  return { ...JSON.parse(stdout), bound: (4 * statSync(file).size) / megabyte + 64 };
}

const reason = notOn('linux') ?? underSanitizer();
testUnless(reason, 'a large model, on the CPU and on the reference', () => {
  const file = join(folder, 'large.safetensors');
  const config = validateConfig(presets.mortality({ hidden: 1024, heads: 4, layers: 4 }));
  const weights = [...parameterShapes(config)].map(([name, dims]): [string, WeightTensor] => {
    const count = dims.reduce((a, b) => a * b, 1);
    return [name, { dims: [...dims], data: new Float32Array(count).fill(0.01) }];
  });
  writeFileSync(file, serializeCheckpoint(config, new Map(weights)));
  expect(statSync(file).size).toBeGreaterThan(32 * megabyte);
  for (const device of ['cpu', 'reference']) {
    const { code, grown, bound } = load(file, device);
    expect(code).toBe('ok');
    process.stdout.write(`peak: a model on ${device}: ${grown.toFixed(0)} MiB of ${bound.toFixed(0)}\n`);
    expect(grown).toBeGreaterThan(32);
    expect(grown).toBeLessThanOrEqual(bound);
  }
});

const bytes = 8 * megabyte;
const fill = (text: string) => text.repeat(Math.ceil(bytes / text.length));
const numbered = (count: number, text: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => text(i)).join(',');
/** An opcode with a running number, then more, over and over. */
const numbers = (letter: string, end: string) => {
  const one = Buffer.from(`${letter}\0\0\0\0${end}`, 'latin1');
  const all = Buffer.alloc(Math.floor(bytes / 8) * one.length, one);
  for (let i = 0; i * one.length < all.length; i++) all.writeUInt32LE(i, i * one.length + 1);
  return all;
};
const hostile: Record<string, [make: () => Uint8Array, code: string]> = {
  'a header of small objects': [() => safetensors(`{"a":[${fill('{},')}{}]}`), FILE],
  'as many small objects as a header may have': [() => safetensors(`{"a":[${'{},'.repeat(2 ** 16 - 2)}{}]}`), FILE],
  'a shape of millions of ones': [
    () => safetensors(`{"a":{"dtype":"F32","shape":[${fill('1,')}1],"data_offsets":[0,4]}}`, new Uint8Array(4)),
    FILE,
  ],
  'as many keys of metadata as a header may have': [
    () => safetensors(`{"__metadata__":{${numbered(2 ** 16 - 1, (i) => `"${i}":""`)}}}`),
    CHECKPOINT,
  ],
  'as many tensors as a header may have': [
    () => safetensors(`{${numbered(3 * 2 ** 14, (i) => `"${i}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`)}}`),
    CHECKPOINT,
  ],
  'a text of escapes': [() => safetensors(`{"__metadata__":{"a":"${fill('\\u0041')}"}}`), CHECKPOINT],
  'a pickle of lists without end': [() => torchZip(Buffer.alloc(bytes, ']')), FILE],
  'a list of lists': [() => torchZip(Buffer.concat([op.list, Buffer.from(fill(']a'))])), FILE],
  'as many dicts as a pickle may have': [
    () => torchZip(Buffer.concat([op.list, Buffer.from('}a'.repeat(2 ** 17 - 1))])),
    CHECKPOINT,
  ],
  'a dict of numbers': [() => torchZip(Buffer.concat([op.dict, numbers('J', 'Ns')])), CHECKPOINT],
  'a memo of millions': [() => torchZip(Buffer.concat([op.none, numbers('r', '')])), FILE],
  'a zip of 60,000 members': [
    () => zip(Array.from({ length: 60000 }, (_, i): [string, Uint8Array] => [`top/data/${i}`, new Uint8Array(0)])),
    FILE,
  ],
};
for (const [name, [make, wanted]] of Object.entries(hostile)) {
  testUnless(reason, `${name}: its code, within the bound`, () => {
    const file = join(folder, 'hostile');
    writeFileSync(file, make());
    const { code, grown, bound } = load(file);
    process.stdout.write(`peak: ${name}: ${grown.toFixed(0)} MiB of ${bound.toFixed(0)}\n`);
    expect(code).toBe(wanted);
    expect(grown).toBeLessThanOrEqual(bound);
  });
}
