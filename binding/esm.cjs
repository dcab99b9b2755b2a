// After tsc: removes what older sources left in dist/, and writes the ESM face of the one CommonJS implementation, so that
// classes have one identity in both.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const dist = path.join(root, 'dist');

for (const name of fs.readdirSync(dist, { recursive: true }).map(String)) {
  const source = path.join(root, 'src', name.replace(/(\.d)?\.m?(js|ts)$/, '.ts'));
  const file = path.join(dist, name);
  if (fs.statSync(file).isFile() && !fs.existsSync(source)) fs.rmSync(file);
}

for (const entry of ['index', 'data/health/index']) {
  const file = path.join(dist, `${entry}.js`);
  const names = Object.keys(require(file)).sort();
  const base = `./${path.basename(entry)}.js`;
  fs.writeFileSync(
    path.join(dist, `${entry}.mjs`),
    `import cjs from '${base}';\nexport const { ${names.join(', ')} } = cjs;\n`,
  );
  fs.writeFileSync(path.join(dist, `${entry}.d.mts`), `export * from '${base}';\n`);
}
