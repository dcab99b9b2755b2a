import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import {
  bodyMeasures,
  events,
  isUsable,
  labelOf,
  makeBatch,
  nafldBatches,
  type Person,
  parseOutcomes,
  parseRecipe,
  partOf,
  readPeople,
  writeSequence,
} from '../../../src/data/nafld';
import { HPformerError } from '../../../src/errors';

const examples = path.join(__dirname, '../../../examples');
const data = path.join(examples, 'nafld');
const json = (file: string) => JSON.parse(fs.readFileSync(path.join(examples, file), 'utf8'));
const lines = (file: string) => fs.readFileSync(path.join(examples, file), 'utf8').trim().split('\n').slice(1);
const featuresJson = json('nafld-mortality/features.json');
const recipe = parseRecipe(featuresJson);

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-nafld-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

const good = {
  people: 'id,age,male,weight,height,case.id\n1,60,1,80.5,,1\n2,50,0,,170,\n',
  readings: 'id,days,test,value\n1,-10,hdl,50\n1,-10,hdl,50\n1,-5,sbp,13682\n1,0,fib4,3\n1,9,hdl,70\n2,-3,smoke,1\n',
  diagnoses: 'id,days,event\n1,-7,htn\n1,4,MI\n2,-1,afib\n2,-9,afib\n',
};

function write(files: Partial<typeof good> = {}): string {
  for (const [name, text] of Object.entries({ ...good, ...files }))
    fs.writeFileSync(path.join(folder, `${name}.csv`), text);
  return folder;
}

async function collect(where: string, outcomes = false): Promise<Person[]> {
  const people: Person[] = [];
  for await (const person of readPeople(where, { outcomes })) people.push(person);
  return people;
}

async function failure(where: string, outcomes = false): Promise<HPformerError> {
  const error = await collect(where, outcomes).then(
    () => undefined,
    (e) => e,
  );
  expect(error).toBeInstanceOf(HPformerError);
  return error;
}

describe('bundled data', () => {
  test('cohort, labels, split and the float32 arrays of every part are the published ones, byte for byte', async () => {
    const hashes = { train: createHash('sha256'), valid: createHash('sha256'), test: createHash('sha256') };
    const split: string[] = [];
    const outcomes = parseOutcomes([
      'death',
      'htn',
      'dyslipidemia',
      'diabetes',
      'MI',
      'afib',
      'heart failure',
      'stroke',
    ]);
    const labels: string[] = [];
    const example = json('nafld-mortality/example.json');
    let seen = 0;
    for await (const batch of nafldBatches(data, recipe, { outcomes: true, size: 100 })) {
      const rowBytes = recipe.steps * recipe.width * 4;
      for (const [i, person] of batch.people.entries()) {
        const part = partOf(person.matchedSet, recipe);
        const known = outcomes.map((name) => labelOf(person, name, recipe.horizonDays));
        if (known.some((v) => v !== undefined))
          labels.push(`${person.id},${part},${known.map((v) => v ?? '').join(',')}`);
        const { features } = batch.feeds;
        const bytes = new Uint8Array(features.data.buffer, i * rowBytes, rowBytes);
        const patient = example.patients.find((p: { patient: number }) => p.patient === person.id);
        if (patient) {
          seen++;
          expect(batch.feeds.step.data[i]).toBe(patient.steps - 1);
          const floats = features.data.subarray(i * recipe.steps * recipe.width, (i + 1) * recipe.steps * recipe.width);
          const want = new Float32Array(floats.length);
          want.set(patient.rows.flat());
          expect(floats).toEqual(want);
        }
        if (known[0] === undefined) continue;
        hashes[part].update(bytes);
        split.push(`${person.id},${part},${known[0]}`);
      }
    }
    expect(seen).toBe(3);
    expect(split).toEqual(lines('nafld-mortality/split.csv'));
    expect(labels).toEqual(lines('nafld-outcomes/labels.csv'));
    expect(Object.fromEntries(Object.entries(hashes).map(([k, h]) => [k, h.digest('hex')]))).toEqual(example.sha256);
  });

  test('the files are those of the notice', () => {
    const { gunzipSync } = jest.requireActual<typeof import('node:zlib')>('node:zlib');
    const notice = fs.readFileSync(path.join(data, 'README.md'), 'utf8');
    for (const name of ['people', 'readings', 'diagnoses']) {
      const text = gunzipSync(fs.readFileSync(path.join(data, `${name}.csv.gz`)));
      expect(notice).toContain(createHash('sha256').update(text).digest('hex'));
    }
  });
});

describe('reading', () => {
  test('plain CSV without outcome columns; later rows do not count; repeats count as rows once as values', async () => {
    const [first, second] = await collect(write());
    expect(first).toMatchObject({ id: 1, age: 60, male: 1, matchedSet: '1' });
    expect(first!.body[bodyMeasures.indexOf('weight')]).toBe(80.5);
    expect(first!.body[bodyMeasures.indexOf('height')]).toBeNaN();
    expect(first!.readings).toHaveLength(4);
    expect(isUsable(first!, recipe)).toBe(true);
    expect(first!.outcome).toBeUndefined();
    expect(second!.matchedSet).toBe('id2');
    expect(second!.firstDiagnosis[events.indexOf('afib')]).toBe(-9);
    expect(isUsable(second!, recipe)).toBe(false);
    const rows = new Float32Array(recipe.steps * recipe.width);
    expect(writeSequence(first!, recipe, rows)).toBe(3);
    const at = (step: number, channel: string) => rows[step * recipe.width + recipe.channels.indexOf(channel)]!;
    expect(at(1, 'sbp')).toBeCloseTo((260 - recipe.scaling.sbp.mean) / recipe.scaling.sbp.scale, 6);
    expect([at(0, 'log_gap'), at(0, 'dx_htn'), at(1, 'dx_htn'), at(2, 'dx_MI')]).toEqual([0, 0, 1, 0]);
    expect([at(2, 'hdl_known'), at(2, 'hdl_measured'), at(2, 'fib4_measured')]).toEqual([1, 0, 1]);
    expect(at(0, 'log_count')).toBeCloseTo(
      (Math.log1p(1) - recipe.scaling.log_count.mean) / recipe.scaling.log_count.scale,
      6,
    );
    expect(rows.subarray(3 * recipe.width).every((v) => v === 0)).toBe(true);
  });

  test('gzip, CRLF, a byte order mark, columns in another order and rows out of order give the same people', async () => {
    const want = await collect(write());
    fs.rmSync(folder, { recursive: true });
    fs.mkdirSync(folder);
    const shuffled = {
      people: '\uFEFFcase.id,height,weight,male,age,id,bmi\r\n,170,,0,50,2,\r\n1,,80.5,1,60,1,20\r\n',
      readings:
        'value,test,days,id\r\n1,smoke,-3,2\r\n50,hdl,-10,1\r\n50,hdl,-10,1\r\n13682,sbp,-5,1\r\n3,fib4,-0,1\r\n70,hdl,9,1',
      diagnoses: 'event,id,days\r\nafib,2,-1\r\nMI,1,4\r\nhtn,1,-7\r\nafib,2,-9\r\n',
    };
    for (const [name, text] of Object.entries(shuffled))
      fs.writeFileSync(path.join(folder, `${name}.csv.gz`), gzipSync(text));
    const got = await collect(folder);
    expect(got).toEqual(want);
    const bytes = (people: Person[]) => makeBatch(people, recipe).feeds.features.data;
    expect(bytes(got)).toEqual(bytes(want));
  });

  test('rows of people that people.csv does not list are passed over', async () => {
    const want = await collect(write());
    const extra = await collect(
      write({
        readings: `${good.readings}3,-1,hdl,40\n`,
        diagnoses: `id,days,event\n0,1,MI\n${good.diagnoses.split('\n').slice(1).join('\n')}`,
      }),
    );
    expect(extra).toEqual(want);
  });

  test.each<[string, Partial<typeof good>, string, RegExp]>([
    [
      'a header without a column',
      { readings: 'person,days,test,value\n1,0,hdl,5\n' },
      'ERR_HPFORMER_FILE',
      /readings\.csv: header: .*no id/,
    ],
    ['a column twice', { readings: 'id,days,test,value,days\n' }, 'ERR_HPFORMER_FILE', /"days" twice/],
    ['an empty file', { people: '' }, 'ERR_HPFORMER_FILE', /people\.csv: expected a header line/],
    [
      'a short row',
      { diagnoses: 'id,days,event\n1,5\n' },
      'ERR_HPFORMER_FILE',
      /diagnoses\.csv: row 1: expected 3 fields, got 2/,
    ],
    [
      'quotes',
      { diagnoses: 'id,days,event\n1,5,"MI"\n' },
      'ERR_HPFORMER_FILE',
      /row 1: expected fields without quotes/,
    ],
    [
      'a bad id',
      { readings: 'id,days,test,value\n1,0,hdl,50\nx,0,hdl,50\n' },
      'ERR_HPFORMER_INPUT',
      /readings\.csv: row 2, column id: expected a whole number, got "x"/,
    ],
    [
      'a bad value',
      { readings: 'id,days,test,value\n1,0,hdl,5o\n' },
      'ERR_HPFORMER_INPUT',
      /row 1, column value: expected a number, got "5o"/,
    ],
    [
      'an empty value',
      { readings: 'id,days,test,value\n1,0,hdl,\n' },
      'ERR_HPFORMER_INPUT',
      /row 1, column value: expected a number, got nothing/,
    ],
    [
      'infinity',
      { readings: 'id,days,test,value\n1,0,hdl,1e999\n' },
      'ERR_HPFORMER_INPUT',
      /column value: expected a number, got "1e999"/,
    ],
    [
      'hexadecimal',
      { people: 'id,age,male,weight,height,case.id\n1,0x20,1,,,1\n' },
      'ERR_HPFORMER_INPUT',
      /people\.csv: row 1, column age/,
    ],
    [
      'a fraction of a day',
      { readings: 'id,days,test,value\n1,0.5,hdl,50\n' },
      'ERR_HPFORMER_INPUT',
      /column days: expected a whole number, got "0.5"/,
    ],
    [
      'an unknown test',
      { readings: 'id,days,test,value\n1,0,chol,50\n' },
      'ERR_HPFORMER_INPUT',
      /column test: expected one of hdl, sbp, fib4, smoke, got "chol"/,
    ],
    [
      'an unknown event',
      { diagnoses: 'id,days,event\n1,0,flu\n' },
      'ERR_HPFORMER_INPUT',
      /row 1, column event: expected one of nafld, .*got "flu"/,
    ],
    [
      'a person twice',
      { people: `${good.people}2,51,0,,,\n` },
      'ERR_HPFORMER_INPUT',
      /people: row 3, column id: .*got 2 again/,
    ],
    [
      'no age',
      { people: 'id,age,male,weight,height,case.id\n1,,1,,,1\n' },
      'ERR_HPFORMER_INPUT',
      /column age: expected a number, got nothing/,
    ],
    [
      'a sex that is not 0 or 1',
      { people: 'id,age,male,weight,height,case.id\n1,50,F,,,1\n' },
      'ERR_HPFORMER_INPUT',
      /column male: expected 0 or 1, got "F"/,
    ],
  ])('%s is refused', async (_, files, code, message) => {
    const error = await failure(write(files));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
  });

  test('missing files, truncated gzip and text that is not UTF-8 are refused', async () => {
    expect((await failure(folder)).message).toMatch(/expected people\.csv\.gz or people\.csv there, got neither/);
    write();
    fs.rmSync(path.join(folder, 'readings.csv'));
    fs.writeFileSync(path.join(folder, 'readings.csv.gz'), gzipSync(good.readings).subarray(0, 40));
    expect(await failure(folder)).toMatchObject({
      code: 'ERR_HPFORMER_FILE',
      message: expect.stringMatching(/readings\.csv\.gz: cannot be read/),
    });
    fs.writeFileSync(path.join(folder, 'readings.csv.gz'), 'plain text');
    expect((await failure(folder)).code).toBe('ERR_HPFORMER_FILE');
    fs.rmSync(path.join(folder, 'readings.csv.gz'));
    fs.writeFileSync(path.join(folder, 'readings.csv'), Buffer.from([0x69, 0xff, 0xfe, 0x0a]));
    expect((await failure(folder)).code).toBe('ERR_HPFORMER_FILE');
  });

  test('outcome columns are needed only when asked for', async () => {
    expect((await failure(write(), true)).message).toMatch(/people\.csv: header: .*no futime, status/);
    const people = 'id,age,male,weight,height,case.id,futime,status\n1,60,1,,,1,1825,1\n2,60,1,,,1,soon,dead\n';
    expect(await collect(write({ people }))).toHaveLength(2);
    expect((await failure(folder, true)).message).toMatch(/row 2, column futime: expected a whole number, got "soon"/);
  });
});

describe('labels', () => {
  const base = { readings: [], firstDiagnosis: events.map(() => Number.POSITIVE_INFINITY) };
  const person = (followUp: number, died: boolean, mi = Number.POSITIVE_INFINITY) =>
    ({
      ...base,
      firstDiagnosis: events.map((e) => (e === 'MI' ? mi : Number.POSITIVE_INFINITY)),
      outcome: { followUp, died },
    }) as unknown as Person;

  test('death', () => {
    expect(labelOf(person(1825, true), 'death', 1826)).toBe(1);
    expect(labelOf(person(1826, true), 'death', 1826)).toBe(0);
    expect(labelOf(person(1826, false), 'death', 1826)).toBe(0);
    expect(labelOf(person(1825, false), 'death', 1826)).toBeUndefined();
  });

  test('a disease', () => {
    expect(labelOf(person(100, true, 50), 'MI', 1826)).toBe(1);
    expect(labelOf(person(9999, false, 1826), 'MI', 1826)).toBe(1);
    expect(labelOf(person(9999, false, 1827), 'MI', 1826)).toBe(0);
    expect(labelOf(person(9999, false, 0), 'MI', 1826)).toBeUndefined();
    expect(labelOf(person(100, true), 'MI', 1826)).toBeUndefined();
  });

  test('unknown names are refused', () => {
    expect(() => parseOutcomes(['death', 'flu'])).toThrow(/labels\[1\]: expected one of death, nafld, .*got "flu"/);
  });
});

describe('recipe', () => {
  type Json = { channels: Record<string, unknown>[]; [key: string]: unknown };
  test.each<[string, (f: Json) => void, RegExp]>([
    ['a channel less', (f) => f.channels.pop(), /expected 31 channels, got "30 channels"/],
    ['another order', (f) => f.channels.reverse(), /channels\[0\]\.index/],
    [
      'two channels swapped',
      (f) => {
        const [a, b] = [f.channels[21]!.name, f.channels[22]!.name];
        f.channels[21]!.name = b;
        f.channels[22]!.name = a;
      },
      /channels\[21\]\.name: expected "dx_nafld", got "dx_htn"/,
    ],
    [
      'another transform',
      (f) => (f.channels[2]!.transform = 'identity'),
      /channels\[2\]\.transform: expected "log", got "identity"/,
    ],
    ['a zero scale', (f) => (f.channels[0]!.scale = 0), /channels\[0\]\.scale: expected a positive number, got 0/],
    ['no mean', (f) => delete f.channels[0]!.mean, /channels\[0\]\.mean: expected a number, got undefined/],
    ['a clip the wrong way round', (f) => (f.channels[0]!.clip = [9, 1]), /channels\[0\]\.clip/],
    ['another width', (f) => (f.width = 30), /width: expected 31, got 30/],
    ['no steps', (f) => (f.steps = 0), /steps: expected a positive integer, got 0/],
    ['another hash', (f) => (f.split = { ...(f.split as object), hash: 'md5' }), /split\.hash/],
  ])('%s is refused', (_, change, message) => {
    const changed = structuredClone(featuresJson);
    change(changed);
    expect(() => parseRecipe(changed)).toThrow(message);
  });

  test('what is not an object is refused', () => {
    for (const value of [null, 3, 'x', [], {}]) expect(() => parseRecipe(value)).toThrow(HPformerError);
  });
});
