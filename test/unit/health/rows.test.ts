import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  convertUnit,
  DropReport,
  EpisodePreparer,
  type EpisodeReadOptions,
  healthTasks,
  healthVariables,
  openEpisodes,
  synthesizeEpisode,
} from '../../../src/data/health';
import { root } from '../../skips';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-rows-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const variable = (name: string) => healthVariables.findIndex((v) => v.name === name);
const preparer = new EpisodePreparer({ task: healthTasks['in-hospital-mortality'] });

async function read(name: string, content: string | object, options: Partial<EpisodeReadOptions> = {}) {
  const file = join(folder, name);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  const drops = new DropReport();
  const stays = new Map<string, Float64Array>();
  for await (const input of openEpisodes([file], { drops, ...options }))
    stays.set(input.id, preparer.bin(input)!.values);
  const counts = Object.fromEntries(Object.entries(drops.toJSON()).map(([why, { count }]) => [why, count]));
  return { stays, counts, file };
}

/** The readings of an episode file as JSON readings. */
function readings(text: string): { hours: number; variable: string; value: string }[] {
  const [head, ...rows] = text
    .trim()
    .split('\n')
    .map((line) => line.split(','));
  return rows.flatMap((row) =>
    row
      .slice(1)
      .flatMap((value, c) => (value === '' ? [] : [{ hours: Number(row[0]), variable: head![c + 1]!, value }])),
  );
}

describe('JSON lines', () => {
  test('one reading a line, or one stay a line, gives the arrays of the CSV', async () => {
    const one = synthesizeEpisode(1);
    const two = synthesizeEpisode(2);
    const csv = (await read('x_timeseries.csv', one.text)).stays.get('x')!;
    const lines = [one, two].flatMap(({ id, text }) => readings(text).map((r) => JSON.stringify({ stay: id, ...r })));
    const flat = await read('a.jsonl', lines.join('\n'));
    expect([...flat.stays.keys()]).toEqual([one.id, two.id]);
    expect(flat.stays.get(one.id)).toEqual(csv);
    const whole = [one, two].map(({ id, text }) => JSON.stringify({ stay: id, readings: readings(text) }));
    expect((await read('b.ndjson', `\n${whole.join('\n\n')}\n`)).stays).toEqual(flat.stays);
  });

  test('units are converted; what cannot be used stops the run, or is counted', async () => {
    const line = (rest: object) => JSON.stringify({ stay: 'a', hours: 1, ...rest });
    const { stays } = await read('u.jsonl', line({ variable: 'Temperature', value: 98.6, unit: '[degF]' }));
    expect(stays.get('a')![56]).toBeCloseTo(37, 10);
    const bad = [
      line({ variable: 'Heart Rate', value: 80 }),
      '{"stay": ',
      line({ variable: 'Pulse', value: 80 }),
      line({ variable: 'Heart Rate', value: 'fast' }),
      line({ variable: 'Heart Rate', value: 80, unit: 'furlong' }),
      line({ variable: 'Glascow coma scale total', value: 16 }),
      line({ variable: 'Heart Rate', value: 80, hours: 'noon' }),
      JSON.stringify({ hours: 1, variable: 'Heart Rate', value: 1 }),
    ];
    await expect(read('bad.jsonl', bad.join('\n'))).rejects.toThrow(/bad.jsonl line 2: line is no JSON/);
    await expect(read('bad.jsonl', bad.slice(2).join('\n'))).rejects.toThrow(
      /bad.jsonl line 1, column "variable": variable is not known, got "Pulse"/,
    );
    expect((await read('bad.jsonl', bad.join('\n'), { lenient: true })).counts).toEqual({
      'line is no JSON': 1,
      'variable is not known': 1,
      'value is not a number': 1,
      'unit is not known': 1,
      'category is not known': 1,
      'hours is no number': 1,
      'stay is no text or number': 1,
    });
    await expect(
      read('t.jsonl', ['a', 'b', 'a'].map((s) => line({ variable: 'pH', value: 7, stay: s })).join('\n')),
    ).rejects.toThrow(/line 3: expected the lines of a stay together, got stay "a" again/);
  });

  test('stays that are opened later than they are read name themselves', async () => {
    const file = join(folder, 'later.jsonl');
    const lines = ['a', 'b'].map((stay) => JSON.stringify({ stay, hours: 1, variable: 'pH', value: 7 }));
    writeFileSync(file, lines.join('\n'));
    const inputs = [];
    for await (const input of openEpisodes([file], { drops: new DropReport() })) inputs.push(input);
    expect(inputs.map((input) => input.open('error').place(0))).toEqual(
      ['a', 'b'].map((s) => `${file} stay ${s} reading 1`),
    );
  });

  test('numbers stand for category texts', async () => {
    const line = JSON.stringify({ stay: 1, hours: 1, variable: 'Glascow coma scale total', value: 15 });
    expect((await read('c.jsonl', line)).stays.get('1')![28]).toBe(1);
  });
});

describe('FHIR', () => {
  const loinc = (code: string) => ({ coding: [{ system: 'http://loinc.org', code }] });
  let number = 0;
  const observation = (code: string, rest: object, time = '2150-03-01T11:20:00Z') => ({
    resourceType: 'Observation',
    id: String(number++),
    status: 'final',
    encounter: { reference: 'Encounter/e1' },
    effectiveDateTime: time,
    code: loinc(code),
    ...rest,
  });
  const quantity = (value: number, code?: string) => ({ valueQuantity: { value, ...(code ? { code } : {}) } });
  const encounter = { resourceType: 'Encounter', id: 'e1', period: { start: '2150-03-01T10:20:00Z' } };
  const bundle = (...resources: object[]) => ({
    resourceType: 'Bundle',
    type: 'collection',
    entry: resources.map((resource) => ({ resource })),
  });
  const column = async (resource: object, c: number) => {
    const { stays } = await read('one.json', bundle(encounter, resource));
    return stays.get('e1')![c];
  };

  test.each<[string, object, number, number]>([
    ['temperature in °F', observation('8310-5', quantity(98.6, '[degF]')), 56, 37],
    ['glucose in mmol/L', observation('14749-6', quantity(10, 'mmol/L')), 49, 180.156],
    ['pressure in kPa', observation('8480-6', quantity(16, 'kPa')), 55, 120.00986923],
    ['oxygen fraction in %', observation('3150-6', quantity(40, '%')), 3, 0.4],
    ['weight in pounds', observation('29463-7', quantity(180, '[lb_av]')), 57, 81.6466266],
    ['height in inches', observation('8302-2', quantity(66, '[in_i]')), 51, 167.64],
    ['saturation as a fraction', observation('59408-5', quantity(0.97, '1')), 53, 97],
    ['coma scale by number', observation('9267-6', quantity(4, '{score}')), 7, 1],
    ['coma scale by integer', observation('9269-2', { valueInteger: 15 }), 28, 1],
    ['coma scale by text', observation('9270-0', { valueCodeableConcept: { text: 'Confused' } }), 39, 1],
    ['capillary refill in seconds', observation('44963-7', quantity(5, 's')), 1, 1],
    ['capillary refill in milliseconds', observation('44963-7', quantity(2900, 'ms')), 0, 1],
    ['pressure in hPa', observation('8462-4', quantity(100, 'hPa')), 2, 75.006168],
    ['weight in stone', observation('29463-7', quantity(10, '[stone_av]')), 57, 63.5029318],
  ])('%s', async (_, resource, c, expected) => {
    expect(await column(resource, c)).toBeCloseTo(expected, 6);
  });

  // LOINC answer lists LL355-9, LL357-5 and LL356-7; columns by the score of the published texts.
  test.each<[string, string[], number[]]>([
    ['9267-6', ['LA6553-7', 'LA6554-5', 'LA6555-2', 'LA6556-0'], [6, 11, 5, 7]],
    ['9268-4', ['LA6562-8', 'LA6563-6', 'LA6564-4', 'LA6565-1', 'LA6566-9', 'LA6567-7'], [12, 23, 13, 16, 22, 21]],
    ['9270-0', ['LA6557-8', 'LA6558-6', 'LA6559-4', 'LA6560-2', 'LA6561-0'], [37, 47, 48, 46, 43]],
  ])('coma scale %s by answer code', async (code, answers, columns) => {
    for (const [i, answer] of answers.entries()) {
      const coded = (system: string) =>
        observation(code, { valueCodeableConcept: { coding: [{ system, code: answer, display: 'in other words' }] } });
      expect(await column(coded('http://loinc.org'), columns[i]!)).toBe(1);
      const { counts } = await read('other.json', bundle(encounter, coded('http://example.org')));
      expect(Object.values(counts)).toEqual([1]);
    }
    // An answer of another question is none of this one.
    const foreign = { valueCodeableConcept: { coding: [{ system: 'http://loinc.org', code: 'LA6568-5' }] } };
    const { counts } = await read('foreign.json', bundle(encounter, observation(code, foreign)));
    expect(Object.keys(counts)).toEqual([expect.stringMatching(/^Glascow .*: category is not known$/)]);
  });

  test('a capillary refill time in another unit or with a comparator is counted', async () => {
    const refill = (valueQuantity: object) => observation('44963-7', { valueQuantity });
    const { counts } = await read(
      'refill.json',
      bundle(
        encounter,
        refill({ value: 1, code: 'min' }),
        refill({ value: 3, code: 's', comparator: '>' }),
        refill({ code: 's' }),
      ),
    );
    expect(counts).toEqual({
      'Capillary refill rate: unit "min" is not known': 1,
      'Capillary refill rate: value with comparator ">"': 1,
      'Capillary refill rate: no number': 1,
    });
  });

  test('a panel of blood pressure, a period, another zone, hour 0 from the encounter', async () => {
    const panel = {
      ...observation('85354-9', {
        component: [
          { code: loinc('8480-6'), ...quantity(120, 'mm[Hg]') },
          { code: loinc('8462-4'), ...quantity(80, 'mm[Hg]') },
          { code: loinc('8478-0'), ...quantity(93, 'mm[Hg]') },
        ],
      }),
      effectiveDateTime: undefined,
      effectivePeriod: { start: '2150-03-01T14:00:00+02:00', end: '2150-03-01T14:50:00+02:00' },
    };
    const { stays, counts } = await read('panel.json', bundle(panel, encounter));
    const row = 2 * 76;
    const values = stays.get('e1')!;
    expect([values[row + 55], values[row + 2], values[row + 52]]).toEqual([120, 80, 93]);
    expect(values[76 + 72]).toBe(0);
    expect(values[row + 72]).toBe(1);
    expect(counts).toEqual({});
  });

  test('everything left out is counted by reason', async () => {
    const pulse = (rest: object, time?: string) => observation('8867-4', { ...quantity(80, '/min'), ...rest }, time);
    const { stays, counts } = await read(
      'drops.json',
      bundle(
        encounter,
        pulse({}),
        pulse({ status: 'entered-in-error' }),
        pulse({ status: 'preliminary' }),
        pulse({}, '2150-03-01'),
        pulse({ effectiveDateTime: undefined }),
        pulse({}, '2023-02-29T10:00:00Z'), // no such day; 2024 has it
        pulse({ encounter: undefined }),
        pulse({ valueQuantity: { value: 80, code: 'furlong' } }),
        pulse({ valueQuantity: { value: 80, code: '/min', comparator: '<' } }),
        pulse({ valueQuantity: undefined }),
        pulse({}),
        pulse({ ...quantity(90, '/min') }),
        pulse({ code: loinc('718-7') }),
        pulse({ code: { coding: [...loinc('8867-4').coding, ...loinc('8310-5').coding] } }),
        observation('8310-5', quantity(370, 'Cel')),
        { resourceType: 'Patient' },
      ),
    );
    expect(counts).toEqual({
      'status "entered-in-error"': 1,
      'status "preliminary"': 1,
      'no effective time with hour and zone': 3,
      'no encounter and no subject': 1,
      'Heart Rate: unit "furlong" is not known': 1,
      'Heart Rate: value with comparator "<"': 1,
      'Heart Rate: no number': 1,
      'reading repeats variable, time and value': 1,
      'two values of Heart Rate at one time, the later kept': 1,
      'LOINC code not used by the model: 718-7': 1,
      'LOINC codes contradict: 8867-4, 8310-5': 1,
      'Temperature: implausible value': 1,
      'resource is no Observation: "Patient"': 1,
    });
    expect(stays.get('e1')![50]).toBe(90);
  });

  test('NDJSON, several encounters; subjects where no encounter is named', async () => {
    const lines = [
      observation('8867-4', quantity(70, '/min'), '2150-03-01T12:00:00Z'),
      {
        ...observation('8867-4', quantity(60, '/min'), '2150-03-02T12:00:00Z'),
        encounter: undefined,
        subject: { reference: 'Patient/p' },
      },
      {
        ...observation('8867-4', quantity(65, '/min'), '2150-03-02T14:30:00Z'),
        encounter: undefined,
        subject: { reference: 'Patient/p' },
      },
    ];
    const { stays } = await read('o.ndjson', lines.map((l) => JSON.stringify(l)).join('\n'));
    expect([...stays.keys()]).toEqual(['e1', 'p']);
    expect([stays.get('p')![50], stays.get('p')![2 * 76 + 50]]).toEqual([60, 65]);
  });

  test('Bundles in Bundles: to a depth, then an error and no overflow of the stack', async () => {
    const nested = (depth: number) =>
      `${'{"resourceType":"Bundle","entry":[{"resource":'.repeat(depth)}${JSON.stringify(
        bundle(encounter, observation('8867-4', quantity(70, '/min'))),
      )}${'}]}'.repeat(depth)}`;
    expect((await read('deep.json', nested(32))).stays.get('e1')![50]).toBe(70);
    for (const depth of [33, 20_000])
      await expect(read('deep.json', nested(depth))).rejects.toMatchObject({
        code: 'ERR_HPFORMER_INPUT',
        message: expect.stringMatching(/entry 1: expected Bundles at most 32 deep, got one in 33 others$/),
      });
  });

  test('observations of one time and variable: the last stands, whatever came between', async () => {
    const times = ['11:20', '12:20', '11:20', '12:20'].map((t) => `2150-03-01T${t}:00Z`);
    const rates = times.map((time, i) => observation('8867-4', quantity(60 + i, '/min'), time));
    const { stays, counts } = await read('twins.json', bundle(encounter, ...rates));
    expect([stays.get('e1')![50], stays.get('e1')![76 + 50]]).toEqual([62, 63]);
    expect(counts).toEqual({ 'two values of Heart Rate at one time, the later kept': 2 });
  });

  test('lists that are none, or hold no objects, are counted and end nothing', async () => {
    for (const wrong of [true, 5, {}, [null], [5]]) {
      const rate = quantity(70, '/min');
      const answer = { valueCodeableConcept: { text: 'x', coding: wrong } };
      const { stays } = await read(
        'lists.json',
        bundle(
          encounter,
          { ...observation('8867-4', rate), code: { coding: wrong } },
          observation('9267-6', answer),
          observation('85354-9', { component: wrong }),
          observation('85354-9', { component: [{ code: { coding: wrong }, ...rate }] }),
          observation('9267-6', { valueCodeableConcept: { coding: [{ extension: wrong }] } }),
          observation('8867-4', rate),
        ),
      );
      expect(stays.get('e1')![50]).toBe(70);
    }
  });

  test('what is no FHIR', async () => {
    await expect(read('n.json', '{"a": 1}')).rejects.toThrow(/n.json: expected a FHIR Bundle or Observation/);
    await expect(read('n.json', '{')).rejects.toThrow(/n.json: expected JSON/);
  });
});

test('units that are not understood, and plain numbers', () => {
  expect(convertUnit(variable('Glucose'), 5, 'mol')).toBeUndefined();
  expect(convertUnit(variable('Fraction inspired oxygen'), 40, undefined)).toBe(0.4);
  expect(convertUnit(variable('Oxygen saturation'), 0.9, '')).toBe(90);
  expect(convertUnit(variable('Heart Rate'), 80, undefined)).toBe(80);
  expect(convertUnit(variable('Temperature'), 310.15, 'K')).toBeCloseTo(37, 10);
});

test('Parquet and Arrow without their packages: the error names what to install', () => {
  // A copy of the package in a place that no node_modules is above of.
  const copy = join(folder, 'copy');
  cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true });
  const script = `
    const { openEpisodes, DropReport } = require(${JSON.stringify(join(copy, 'dist/data/health'))});
    (async () => {
      for (const name of ['a.parquet', 'a.arrow', 'a.feather']) {
        require('node:fs').writeFileSync(${JSON.stringify(folder)} + '/' + name, 'x');
        try { for await (const _ of openEpisodes([${JSON.stringify(folder)} + '/' + name], { drops: new DropReport() })); }
        catch (e) { console.log(e.code, e.message.slice(e.message.lastIndexOf('/') + 1)); }
      }
    })();`;
  const out = execFileSync(process.execPath, ['-e', script], { cwd: copy, encoding: 'utf8' });
  const line = (file: string, name: string) =>
    `ERR_HPFORMER_FILE ${file}: reading this format needs the optional package ${name}: npm install ${name}\n`;
  expect(out).toBe(
    line('a.parquet', 'hyparquet') + line('a.arrow', 'apache-arrow') + line('a.feather', 'apache-arrow'),
  );
});
