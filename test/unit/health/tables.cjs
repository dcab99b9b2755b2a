// Run by tables.test.ts: writes tables with the optional peers' own libraries, reads them as a user would, prints what came.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const health = require('../../../dist/data/health');
const folder = process.argv[2];
const at = (name) => path.join(folder, name);
const { healthVariables } = health;
const task = health.healthTasks['in-hospital-mortality'];

/** Bins of every stay of a file as base64, and what was left out. */
async function read(file, lenient = false) {
  const preparer = new health.EpisodePreparer({ task });
  const drops = new health.DropReport();
  const stays = {};
  try {
    for await (const input of health.openEpisodes([file], { drops, lenient })) {
      const { values } = preparer.bin(input);
      stays[input.id] = crypto.createHash('sha256').update(values).digest('hex');
    }
    return { stays, drops: drops.toJSON() };
  } catch (error) {
    return { code: error.code, message: error.message.replaceAll(folder, '') };
  }
}

void (async () => {
  const { parquetWriteBuffer } = await import('hyparquet-writer');
  const arrow = await import('apache-arrow');
  const ids = [1, 2, 3].map((i) => health.synthesizeEpisode(i));
  const rows = ids.flatMap(({ id, text }) => {
    const [head, ...lines] = text
      .trim()
      .split('\n')
      .map((line) => line.split(','));
    return lines.map((line) => ({ stay: id, cells: Object.fromEntries(head.map((name, c) => [name, line[c]])) }));
  });
  const expected = {};
  for (const { id, text } of ids) {
    fs.writeFileSync(at(`${id}_timeseries.csv`), text);
    Object.assign(expected, (await read(at(`${id}_timeseries.csv`))).stays);
  }
  // Wide: one row a time, numbers as doubles with nulls, categories as text.
  const wide = [
    { name: 'stay', type: 'STRING', data: rows.map((r) => r.stay) },
    { name: 'Hours', type: 'DOUBLE', data: rows.map((r) => Number(r.cells.Hours)) },
    ...healthVariables.map(({ name, categories }) => ({
      name,
      type: categories ? 'STRING' : 'DOUBLE',
      nullable: true,
      data: rows.map((r) => (r.cells[name] === '' ? null : categories ? r.cells[name] : Number(r.cells[name]))),
    })),
  ];
  // Long: one row a reading, values as text.
  const readings = rows.flatMap((r) =>
    healthVariables.flatMap(({ name }) =>
      r.cells[name] === ''
        ? []
        : [{ stay: r.stay, hours: Number(r.cells.Hours), variable: name, value: r.cells[name] }],
    ),
  );
  const long = ['stay', 'hours', 'variable', 'value'].map((name) => ({
    name,
    type: name === 'hours' ? 'DOUBLE' : 'STRING',
    data: readings.map((r) => r[name]),
  }));
  const save = (name, bytes) => fs.writeFileSync(at(name), new Uint8Array(bytes));
  const out = { expected };
  for (const codec of ['UNCOMPRESSED', 'SNAPPY']) {
    save('wide.parquet', parquetWriteBuffer({ columnData: wide, codec, rowGroupSize: 50 }));
    save('long.parquet', parquetWriteBuffer({ columnData: long, codec }));
    out[`wide parquet ${codec}`] = await read(at('wide.parquet'));
    out[`long parquet ${codec}`] = await read(at('long.parquet'));
  }
  const vector = ({ type, data }) =>
    arrow.vectorFromArray(data, type === 'DOUBLE' ? new arrow.Float64() : new arrow.Utf8());
  const table = (columns) => new arrow.Table(Object.fromEntries(columns.map((c) => [c.name, vector(c)])));
  for (const format of ['file', 'stream']) {
    save('wide.arrow', arrow.tableToIPC(table(wide), format));
    save('long.feather', arrow.tableToIPC(table(long), format));
    out[`wide arrow ${format}`] = await read(at('wide.arrow'));
    out[`long feather ${format}`] = await read(at('long.feather'));
  }
  // Dictionary text and 64-bit integers.
  const dictionary = new arrow.Table({
    stay: arrow.vectorFromArray(long[0].data),
    hours: vector(long[1]),
    variable: arrow.vectorFromArray(long[2].data),
    value: arrow.vectorFromArray(long[3].data),
  });
  save('dictionary.arrow', arrow.tableToIPC(dictionary));
  out.dictionary = await read(at('dictionary.arrow'));
  const whole = [
    { name: 'stay', type: 'INT64', data: [7n, 7n] },
    { name: 'hours', type: 'INT32', data: [1, 2] },
    { name: 'variable', type: 'STRING', data: ['Heart Rate', 'Glascow coma scale total'] },
    { name: 'value', type: 'INT64', data: [80n, 15n] },
  ];
  save('whole.parquet', parquetWriteBuffer({ columnData: whole }));
  out.whole = Object.keys((await read(at('whole.parquet'))).stays);
  // What is wrong is named by file, row and column.
  const bad = long.map((c) => ({ ...c, data: [...c.data] }));
  bad[3].data[4] = 'fast';
  bad[2].data[4] = 'Heart Rate';
  save('bad.parquet', parquetWriteBuffer({ columnData: bad }));
  out.bad = await read(at('bad.parquet'));
  out.lenient = (await read(at('bad.parquet'), true)).drops;
  save('cut.parquet', fs.readFileSync(at('wide.parquet')).subarray(0, 5000));
  out.cut = await read(at('cut.parquet'));
  save('cut.arrow', fs.readFileSync(at('wide.arrow')).subarray(0, 5000));
  fs.writeFileSync(at('text.arrow'), 'x');
  out.textArrow = await read(at('text.arrow'));
  out.cutArrow = await read(at('cut.arrow'));
  console.log(JSON.stringify(out));
})();
