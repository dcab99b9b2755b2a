// The last look before `npm publish`: every platform's binary is in the tarball, each of this version, none is too big, and those for
// Linux export nothing but the entry and need no newer C library than promised.
// node test/tools/release.cjs [--partial]: with --partial only the binaries that are there are looked at.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const zlib = require('node:zlib');

const root = path.join(__dirname, '..', '..');
const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
const partial = process.argv.includes('--partial');
const wanted = [
  'darwin-arm64/hpformer.node',
  'linux-arm64/hpformer.glibc.node',
  'linux-arm64/hpformer.musl.node',
  'linux-x64/hpformer.glibc.node',
  'linux-x64/hpformer.musl.node',
  'win32-x64/hpformer.node',
];
const mega = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
/** The first bytes of a CUDA fat binary. */
const fatbin = Buffer.from([0x50, 0xed, 0x55, 0xba]);
const problems = [];
let withCuda = false;

/** Exports and the newest glibc version that a binary asks for, where binutils are installed. */
function symbols(file) {
  const nm = spawnSync('nm', ['-D', path.join(root, file)], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  if (nm.status !== 0) return console.log(`${file}: symbols not looked at (no nm here)`);
  const lines = nm.stdout.split('\n').filter((line) => line !== '');
  const exported = lines.filter((line) => !/^\s*[Uw] /.test(line)).map((line) => line.split(/\s+/).pop());
  const minors = [...nm.stdout.matchAll(/@GLIBC_2\.(\d+)/g)].map((match) => Number(match[1]));
  const newest = minors.length > 0 ? `glibc 2.${Math.max(...minors)}` : 'no version of glibc';
  console.log(`${file}: needs ${newest}, exports ${exported.join(' and ')}`);
  if (Math.max(...minors) > 34) problems.push(`${file} needs ${newest}, expected at most 2.34`);
  const strange = exported.filter(
    (symbol) => !/^(napi_register_module|node_api_module_get_api_version)_v1$/.test(symbol),
  );
  if (strange.length > 0) problems.push(`${file} exports ${strange.join(', ')}`);
}

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const result = spawnSync(npm, ['pack', '--dry-run', '--ignore-scripts', '--json'], { cwd: root, encoding: 'utf8' });
if (result.status !== 0) throw new Error(result.stderr);
const parsed = JSON.parse(result.stdout);
const [{ files, size }] = Array.isArray(parsed) ? parsed : Object.values(parsed);
const packed = new Set(files.map((file) => file.path));

for (const name of wanted) {
  // prebuildify tags a C library only where there are several.
  const file = [`prebuilds/${name}`, `prebuilds/${name.replace(/hpformer\.node$/, 'hpformer.glibc.node')}`].find(
    (each) => packed.has(each),
  );
  if (file === undefined) {
    if (!partial) problems.push(`prebuilds/${name} is missing from the tarball`);
    continue;
  }
  const bytes = fs.readFileSync(path.join(root, file));
  if (!bytes.includes(version)) problems.push(`${file} does not carry version ${version}`);
  const cuda = bytes.includes(fatbin);
  withCuda ||= cuda;
  const share = zlib.gzipSync(bytes, { level: 9 }).length;
  console.log(`${file}: ${mega(bytes.length)}, ${mega(share)} packed${cuda ? ', with CUDA kernels' : ''}`);
  if (name.startsWith('linux')) symbols(file);
  if (share > (cuda ? 7_500_000 : 1_000_000)) problems.push(`${file}: ${mega(share)} packed is too much`);
}
// One platform's tarball has at most 8 MB with CUDA kernels for all architectures and 1.5 MB without; all six have 12 MB.
const binaries = [...packed].filter((file) => file.endsWith('.node'));
const limit = binaries.length > 1 ? 12_000_000 : withCuda ? 8_000_000 : 1_500_000;
console.log(`tarball: ${mega(size)}, ${binaries.length} binaries`);
if (size > limit) problems.push(`the tarball has ${mega(size)}, expected at most ${mega(limit)}`);
for (const problem of problems) console.error(problem);
process.exit(problems.length > 0 ? 1 : 0);
