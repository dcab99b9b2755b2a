/** What the pipeline does at its edges: files that are not there or not writable, options and numbers out of range, hostile folders. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { presets } from '../../../src/config/presets';
import {
  Calibration,
  convertUnit,
  discretize,
  EpisodePreparer,
  extractSubject,
  fitNormalizer,
  healthTasks,
  healthVariables,
  inputFiles,
  knownUnits,
  Normalizer,
  openEpisodes,
  prepareArrays,
  readHealthPreprocessing,
  reliability,
  synthesizeEpisode,
  writeHealthBundle,
} from '../../../src/data/health';
import { DropReport } from '../../../src/data/health/arrays';
import { thin } from '../../../src/data/health/charts';
import { cleanValue } from '../../../src/data/health/clean';
import { countFiles } from '../../../src/data/health/episodes';
import { readBytesSync } from '../../../src/data/health/files';
import { NormalizerFitter } from '../../../src/data/health/normalizer';
import { NpyWriter } from '../../../src/data/health/npy';
import { readPrepared } from '../../../src/data/health/prepared';
import { FhirStay } from '../../../src/data/health/rows/fhir';
import { textLines } from '../../../src/data/health/rows/jsonl';
import { HPformerError } from '../../../src/errors';
import { removeUnfinished } from '../../../src/files';
import { fixtureText } from './fixtures';

const task = healthTasks['in-hospital-mortality'];
let folder: string;
const at = (name: string) => path.join(folder, name);
const put = (name: string, data: string | Uint8Array) => {
  fs.mkdirSync(path.dirname(at(name)), { recursive: true });
  fs.writeFileSync(at(name), data);
  return at(name);
};
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-edges-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

/** The error of a call, which must be an HPformerError with this code. */
async function failure(code: string, body: () => unknown): Promise<string> {
  let error: unknown;
  try {
    await body();
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(HPformerError);
  expect((error as HPformerError).code).toBe(code);
  return (error as HPformerError).message;
}

const all = async <T>(source: AsyncIterable<T>): Promise<T[]> => {
  const out: T[] = [];
  for await (const item of source) out.push(item);
  return out;
};

describe('files', () => {
  test('inputs that are not there, or end in something unknown', async () => {
    expect(await failure('ERR_HPFORMER_FILE', () => all(inputFiles([at('none')])))).toContain('cannot be read');
    expect(await failure('ERR_HPFORMER_FILE', () => all(inputFiles([put('a.txt', '')])))).toContain(
      'expected a folder or a file ending in .csv',
    );
    expect(await countFiles([at('none')])).toBe(0);
    put('in/b/1_timeseries.csv', '');
    put('in/a.jsonl', '');
    put('in/list.csv', '');
    expect(await countFiles([at('in')])).toBe(2);
    expect(await countFiles([at('in'), at('none')])).toBe(2);
  });

  test('a file larger than the memory kept for reading is read whole, and so is the next', () => {
    const bytes = Buffer.alloc(300_000, 'abcdefg');
    expect(readBytesSync(put('large', bytes)).equals(bytes)).toBe(true);
    expect(readBytesSync(put('small', 'x')).toString()).toBe('x');
  });

  test('lines of a file that cannot be read; Parquet and Arrow files likewise', async () => {
    expect(await failure('ERR_HPFORMER_FILE', () => all(textLines(at('none'))))).toContain('cannot be read');
    fs.mkdirSync(at('folder.jsonl'));
    expect(await failure('ERR_HPFORMER_FILE', () => all(textLines(at('folder.jsonl'))))).toContain('cannot be read');
    const drops = new DropReport();
    for (const name of ['x.parquet', 'x.arrow']) {
      put(name, 'no such format');
      expect(await failure('ERR_HPFORMER_FILE', () => all(openEpisodes([at(name)], { drops })))).toContain(name);
    }
  });

  test('arrays that cannot be written', async () => {
    put('taken', '');
    const out = path.join(at('taken'), 'out');
    const inputs = [put('1_episode1_timeseries.csv', synthesizeEpisode(1).text)];
    const normalizer = await fitNormalizer({ inputs, task, out: '' });
    expect(await failure('ERR_HPFORMER_FILE', () => prepareArrays({ inputs, task, out, normalizer }))).toContain(
      'cannot be made',
    );
    expect(await failure('ERR_HPFORMER_FILE', () => NpyWriter.create(path.join(out, 'x.npy'), 'int32', []))).toContain(
      'cannot be written',
    );
    const closed = await NpyWriter.create(at('x.npy'), 'float32', [400_000]);
    await closed.abandon();
    expect(await failure('ERR_HPFORMER_FILE', () => closed.write(new Float32Array(400_000), 1))).toContain(
      'x.npy: cannot be written',
    );
    expect(await failure('ERR_HPFORMER_FILE', () => closed.end())).toContain('x.npy: cannot be written');
    expect(fs.existsSync(at('x.npy'))).toBe(false);
  });

  test('arrays whose making fails or is interrupted leave nothing behind', async () => {
    const inputs = [put('1_episode1_timeseries.csv', synthesizeEpisode(1).text)];
    const options = { inputs, task, out: at('left'), normalizer: await fitNormalizer({ inputs, task, out: '' }) };
    const { create } = NpyWriter;
    const spy = jest.spyOn(NpyWriter, 'create').mockImplementation((file, type, dims) => {
      if (!file.endsWith('step.npy')) return create.call(NpyWriter, file, type, dims);
      throw new HPformerError('ERR_HPFORMER_FILE', 'step.npy: cannot be written');
    });
    try {
      expect(await failure('ERR_HPFORMER_FILE', () => prepareArrays(options))).toContain('step.npy');
    } finally {
      spy.mockRestore();
    }
    expect(fs.readdirSync(at('left'))).toEqual([]);
    const names: string[] = [];
    const progress = () => {
      names.push(...fs.readdirSync(at('left')));
      removeUnfinished();
      expect(fs.readdirSync(at('left'))).toEqual([]);
    };
    expect(await failure('ERR_HPFORMER_FILE', () => prepareArrays({ ...options, progress }))).toContain(
      'features.npy: cannot be written',
    );
    expect(names.map((name) => name.replace(/\.[0-9a-f]{12}\.tmp$/, ''))).toEqual([
      'bins.npy',
      'features.npy',
      'ids.txt',
      'step.npy',
    ]);
    expect(fs.readdirSync(at('left'))).toEqual([]);
  });
});

describe('prepared arrays of a stranger', () => {
  /** A folder of two stays as prepareArrays writes it, and its manifest. */
  async function prepared() {
    for (const i of [1, 2]) put(`in/${i}_episode1_timeseries.csv`, synthesizeEpisode(i).text);
    const manifest = await prepareArrays({ inputs: [at('in')], task, out: at('out'), normalizer: 'fit' });
    return { manifest, read: () => all(readPrepared(at('out'), manifest.preprocessing, 2)) };
  }
  const change = (values: object) => {
    const file = at('out/prepare.json');
    put('out/prepare.json', JSON.stringify({ ...JSON.parse(fs.readFileSync(file, 'utf8')), ...values }));
  };

  test('reads what was written', async () => {
    const { read } = await prepared();
    const [stays] = await read();
    expect(stays!.map(({ id }) => id)).toEqual(['1_episode1', '2_episode1']);
    expect(stays![1]!.features).toHaveLength(48 * 76);
  });

  test.each<[string, object]>([
    ['no format', { format: undefined }],
    ['another version', { version: 2 }],
    ['no steps', { steps: undefined }],
    ['steps that are text', { steps: '48' }],
    ['steps of -1', { steps: -1 }],
    ['steps beyond all memory', { steps: 2 ** 40 }],
    ['no columns', { columns: undefined }],
    ['columns that are a number', { columns: 76 }],
    ['no episodes', { episodes: undefined }],
    ['half an episode', { episodes: 1.5 }],
    ['more episodes than there are', { episodes: 3 }],
    ['episodes beyond all memory', { episodes: 2 ** 53 }],
  ])('a manifest with %s', async (_, values) => {
    const { read } = await prepared();
    change(values);
    let error: unknown;
    await read().catch((caught) => {
      error = caught;
    });
    expect(error).toBeInstanceOf(HPformerError);
    expect((error as HPformerError).code).toMatch(/^ERR_HPFORMER_(INPUT|FILE)$/);
    expect((error as HPformerError).message).toContain(at('out'));
  });

  test.each(['null', '[]', '3', '{'])('a manifest that is %s', async (text) => {
    const { read } = await prepared();
    put('out/prepare.json', text);
    await expect(read()).rejects.toBeInstanceOf(HPformerError);
  });

  test.each(['features.npy', 'bins.npy', 'step.npy', 'ids.txt'])('a %s that is missing or cut short', async (name) => {
    const { read } = await prepared();
    const bytes = fs.readFileSync(at(`out/${name}`));
    for (const kept of [bytes.subarray(0, bytes.length - 5), bytes.subarray(0, 3), undefined]) {
      if (kept) put(`out/${name}`, kept);
      else fs.rmSync(at(`out/${name}`));
      expect(await failure('ERR_HPFORMER_FILE', read)).toContain(at('out'));
    }
  });
});

describe('numbers and options', () => {
  test('a normaliser of another width, other columns, or no width', async () => {
    const narrow = new NormalizerFitter({ width: 3 });
    narrow.add(new Float64Array([1, 2, 3, 2, 3, 5]));
    const normalizer = narrow.finish();
    expect(await failure('ERR_HPFORMER_SHAPE', () => new EpisodePreparer({ task, normalizer }))).toContain('got 3');
    for (const options of [{ columns: 'some' }, { width: 0 }, { width: 1.5 }])
      await failure('ERR_HPFORMER_RANGE', () => new NormalizerFitter(options as never));
    expect(
      await failure('ERR_HPFORMER_INPUT', () =>
        Normalizer.fromJSON({ mean: [0], scale: [1], columns: 'some' } as never),
      ),
    ).toContain('columns: expected "all" or "numeric"');
    const content = { name: 'x', task: task.name, labels: ['a'], provenance: {} };
    const bundle = () => writeHealthBundle(new Uint8Array(), { ...content, normalizer });
    expect(await failure('ERR_HPFORMER_CHECKPOINT', bundle)).toContain('expected a normalizer of 76 columns, got 3');
    const wide = new NormalizerFitter();
    wide.add(Float64Array.from({ length: 152 }, (_, i) => i));
    const two = () =>
      writeHealthBundle(new Uint8Array(), { ...content, normalizer: wide.finish(), calibration: [null, null] });
    expect(await failure('ERR_HPFORMER_CHECKPOINT', two)).toContain('each of 1 labels, got 2');
    const foreign = { recipe: 'other', name: 'x', features: {} } as never;
    expect(
      await failure('ERR_HPFORMER_CHECKPOINT', () => readHealthPreprocessing(foreign, presets.mortality())),
    ).toContain('got "other"');
  });

  test('bins: step, end and empty stays', async () => {
    const { text } = synthesizeEpisode(3);
    for (const options of [{ step: 0 }, { step: '1' }, { end: Number.NaN }, { end: '48' }])
      await failure('ERR_HPFORMER_RANGE', () => discretize(text, options as never));
    const header = text.slice(0, text.indexOf('\n') + 1);
    expect(await failure('ERR_HPFORMER_INPUT', () => discretize(header))).toContain('at least one row');
    expect(await failure('ERR_HPFORMER_INPUT', () => discretize(text, { end: -3 }))).toContain(
      'an end after the start',
    );
  });

  test('reliability and isotonic calibration', async () => {
    for (const bins of [0, 10001, 1.5, Number.NaN])
      await failure('ERR_HPFORMER_RANGE', () => reliability([1], [0.5], { bins }));
    await failure('ERR_HPFORMER_RANGE', () => reliability([1], [0.5], { strategy: 'some' as never }));
    for (const [labels, probabilities] of [
      [[1], []],
      [[], []],
    ])
      await failure('ERR_HPFORMER_INPUT', () => reliability(labels!, probabilities!));
    // Equal scores are one point: the share of events among them.
    const fitted = Calibration.fit('isotonic', [0, 1, 0, 1, 1, 1], [0.2, 0.2, 0.2, 0.4, 0.9, 0.9]);
    expect(fitted.method).toBe('isotonic');
    expect(fitted.probability(0.2)).toBeCloseTo(1 / 3, 12);
    expect(fitted.probability(0.9)).toBe(1);
  });

  test('made-up stays: numbers that are none', async () => {
    for (const number of [-1, 0.5, Number.NaN]) await failure('ERR_HPFORMER_RANGE', () => synthesizeEpisode(number));
    for (const options of [{ hours: 0 }, { hours: 10001 }, { seed: 0.5 }])
      await failure('ERR_HPFORMER_RANGE', () => synthesizeEpisode(0, options));
  });

  test('a long curve is thinned to its ends and points between, a short one kept', () => {
    const points = Array.from({ length: 1000 }, (_, i) => i);
    const kept = thin(points, 11);
    expect(kept).toEqual([0, 100, 200, 300, 400, 500, 599, 699, 799, 899, 999]);
    expect(thin([1, 2, 3])).toEqual([1, 2, 3]);
  });

  test('units: what is known can be converted, and temperatures go by their unit, then by their label', () => {
    for (const variable of healthVariables.keys())
      for (const unit of knownUnits(variable)) expect(Number.isFinite(convertUnit(variable, 1, unit))).toBe(true);
    const temperature = healthVariables.findIndex(({ name }) => name === 'Temperature');
    const celsius = (unit: string, item: number) =>
      cleanValue({ variable: temperature, item, value: '77', unit }, false);
    for (const [unit, item] of [
      ['?F', 676],
      ['', 678],
      ['', 223761],
    ] as const)
      expect(celsius(unit, item)).toEqual({ value: 25 });
    for (const [unit, item] of [
      ['deg. C', 678],
      ['', 676],
    ] as const)
      expect(celsius(unit, item)).toEqual({ value: 77 });
  });
});

describe('what is left out is counted', () => {
  test('an encounter without a start, an observation twice, entries that are no list', async () => {
    const drops = new DropReport();
    const stay = new FhirStay('f.json', drops);
    stay.add({ resourceType: 'Encounter', id: 'e' }, 'one');
    stay.add({ resourceType: 'Encounter', period: { start: '2020-01-01T00:00:00Z' } }, 'two');
    const observation = {
      resourceType: 'Observation',
      id: 'o',
      status: 'final',
      encounter: { reference: 'Encounter/1' },
      effectiveDateTime: '2020-01-01T01:00:00Z',
      code: { coding: [{ system: 'http://loinc.org', code: '8867-4' }] },
      valueQuantity: { value: 80, unit: '/min', code: '/min' },
    };
    stay.add({ resourceType: 'Bundle', entry: [{ resource: observation }, { resource: observation }] }, 'three');
    expect(drops.toJSON()).toMatchObject({
      'encounter without id or start': { count: 2, examples: ['one', 'two'] },
      'observation repeats an id': { count: 1, examples: ['three entry 2'] },
    });
    expect(drops.total).toBe(3);
    expect(drops.toString().split('\n')).toContain('2 × encounter without id or start (first: one)');
    expect(await failure('ERR_HPFORMER_INPUT', () => stay.add({ resourceType: 'Bundle', entry: 3 }, 'four'))).toContain(
      'expected the entries of a Bundle',
    );
  });

  test('malformed stays where that is allowed, and events without a time', async () => {
    put('in/1_episode1_timeseries.csv', synthesizeEpisode(1).text);
    put('in/2_episode1_timeseries.csv', 'Hours,Heart Rate\nnoon,80\n');
    const inputs = [at('in')];
    const normalizer = await fitNormalizer({ inputs: [at('in/1_episode1_timeseries.csv')], task, out: '' });
    expect(
      await failure('ERR_HPFORMER_INPUT', () => prepareArrays({ inputs, task, out: at('o'), normalizer })),
    ).toContain('2_episode1_timeseries.csv');
    const made = await prepareArrays({ inputs, task, out: at('o'), normalizer, lenient: true });
    expect(made.episodes).toBe(1);
    expect(made.dropped['malformed stay']).toMatchObject({ count: 1 });

    const listed = put('in/listfile.csv', 'stay,y_true\n1_episode1_timeseries.csv,1\n1_episode1_timeseries.csv,0\n');
    const list = { inputs, task, out: at('l'), normalizer, list: listed };
    expect(await failure('ERR_HPFORMER_INPUT', () => prepareArrays(list))).toContain('expected one line with 1 labels');
    const left = await prepareArrays({ ...list, lenient: true });
    expect([left.episodes, left.dropped['malformed stay']!.count]).toEqual([0, 1]);

    const golden = {
      stays: fixtureText('events/stays.csv'),
      diagnoses: fixtureText('events/diagnoses.csv'),
      events: `${fixtureText('events/events.csv').split('\n')[0]}\n30001,30006,7001,soon,220045,85,bpm\n`,
    };
    expect(extractSubject({ ...golden, compat: 'corrected' }).dropped).toMatchObject({ 'no time': 1 });
    expect(await failure('ERR_HPFORMER_INPUT', () => extractSubject({ ...golden, compat: 'published' }))).toContain(
      'YYYY-MM-DD',
    );
  });
});
