// Regenerates what comes from sources: the tables of errors (README.md) and configuration (docs/configuration.md), the figures.
// `--check` only compares. test/house/docs.test.ts does the same from the sources.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { figures } = require('./figures.cjs');

const root = path.join(__dirname, '..');
const cell = (text) => String(text).replaceAll('|', '\\|').replaceAll('\n', ' ');

/** The table of `errorCodes` (src/errors.ts). */
function errorTable(errorCodes) {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${cell(meaning)} |`);
  return ['| code | meaning |', '| --- | --- |', ...rows].join('\n');
}

/** The table of `configRows()` (src/config/describe.ts). */
function configTable(rows) {
  const lines = rows.map(
    ({ key, type, default: fallback, doc }) =>
      `| \`${cell(key)}\` | ${cell(type)} | ${cell(fallback)} | ${cell(doc)} |`,
  );
  return ['| key | type | default | meaning |', '| --- | --- | --- | --- |', ...lines].join('\n');
}

/** `text` with what stands between the two markers of `name` replaced. */
function replaceBlock(text, name, content) {
  const begin = `<!-- ${name}:begin -->`;
  const end = `<!-- ${name}:end -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`markers of ${name} are missing`);
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`;
}

/** Every generated document: file, and its text as it should be now. */
function documents({ errorCodes, configRows }) {
  const of = (file, name, content) => ({
    file,
    text: replaceBlock(fs.readFileSync(path.join(root, file), 'utf8'), name, content),
  });
  return [
    of('README.md', 'errors', errorTable(errorCodes)),
    of('docs/configuration.md', 'configuration', configTable(configRows())),
    ...figures(),
  ];
}

module.exports = { documents };
if (require.main === module) {
  const { errorCodes } = require('../dist/errors.js');
  const { configRows } = require('../dist/config/describe.js');
  const check = process.argv.includes('--check');
  let stale = false;
  for (const { file, text } of documents({ errorCodes, configRows })) {
    const target = path.join(root, file);
    if (fs.existsSync(target) && fs.readFileSync(target, 'utf8') === text) continue;
    stale = true;
    if (check) console.error(`${file} is not what the sources say; run: npm run docs`);
    else fs.writeFileSync(target, text);
  }
  process.exit(check && stale ? 1 : 0);
}
