// After tsc: writes the ESM face of the one CommonJS implementation, so that classes have one identity in both.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const dist = path.join(__dirname, '..', 'dist');
for (const entry of ['index', 'data/health/index']) {
  const file = path.join(dist, `${entry}.js`);
  if (!fs.existsSync(file)) continue;
  const names = Object.keys(require(file)).sort();
  const base = `./${path.basename(entry)}.js`;
  fs.writeFileSync(
    path.join(dist, `${entry}.mjs`),
    `import cjs from '${base}';\nexport const { ${names.join(', ')} } = cjs;\n`,
  );
  fs.writeFileSync(path.join(dist, `${entry}.d.mts`), `export * from '${base}';\n`);
}
