// Mutation testing of what decides: configuration, checkpoint readers, planner. Each mutant is one changed token of one file in
// a copy of the project; it is killed when the tests of that folder fail. Survivors are printed with their place.
// node test/tools/mutation.cjs [number of mutants, default 200] [seed, default 1] [file text to match]
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const ts = require('typescript');

const root = path.join(__dirname, '..', '..');
const [wanted = '200', seed = '1', match = ''] = process.argv.slice(2);
/** Which tests judge a file; those that know it best first, since a mutant is given up at the first test that fails. */
const unit = 'test/unit/';
const checkpoint = ['safetensors', 'load', 'torch', 'init'].map((name) => `${unit}checkpoint/${name}`);
const first = (name) => [`${unit}checkpoint/${name}`, ...checkpoint.filter((test) => !test.endsWith(name))];
const suites = [
  [/^src\/config\//, [`${unit}config`]],
  [/^src\/checkpoint\/torch\//, first('torch')],
  [/^src\/checkpoint\/(random|init)/, first('init')],
  [/^src\/checkpoint\/(safetensors|json|tensors)/, first('safetensors')],
  [/^src\/checkpoint\/(?!onnx|torch|random|init|safetensors|json|tensors)/, first('load')],
  [/^src\/model\/(plan|graph)\.ts$/, [`${unit}model/costs`, `${unit}model/plan`, `${unit}model/graph`]],
];

const swaps = {
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '===': '!==',
  '!==': '===',
  '&&': '||',
  '||': '&&',
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  true: 'false',
  false: 'true',
};

/** Every place of a file where one token can be changed: [start, end, replacement]. */
function mutantsOf(file) {
  const text = fs.readFileSync(path.join(root, file), 'utf8');
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const found = [];
  const visit = (node) => {
    // Types, imports and what an error says are not behaviour.
    if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isInterfaceDeclaration(node)) return;
    if (ts.isTemplateExpression(node) || ts.isThrowStatement(node)) return;
    if (ts.isCallExpression(node) && /^(fail|refuse|refused)$/.test(node.expression.getText())) return;
    const change = (at, replacement) => found.push([at.getStart(), at.getEnd(), replacement]);
    if (ts.isBinaryExpression(node)) {
      const swap = swaps[node.operatorToken.getText()];
      const text = ts.isStringLiteralLike(node.left) || ts.isStringLiteralLike(node.right);
      if (swap && !(text && swap === '-')) change(node.operatorToken, swap);
    } else if (node.kind === ts.SyntaxKind.TrueKeyword || node.kind === ts.SyntaxKind.FalseKeyword) {
      change(node, swaps[node.getText()]);
    } else if (ts.isNumericLiteral(node)) {
      change(node, `(${node.getText()} + 1)`);
    } else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
      change(node, `(${node.operand.getText()})`);
    } else if (ts.isIfStatement(node)) {
      change(node.expression, 'false');
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found.map(([start, end, replacement]) => ({ file, text, start, end, replacement }));
}

/**
 * True when the tests pass. The project is compiled once and jest runs the JavaScript, one group of tests after the other, and
 * ends at the first failure: a mutant costs its tests, not a compiler.
 */
function run(folder, tests) {
  const jest = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  return tests.every((test) => {
    const result = spawnSync(process.execPath, [jest, '--silent', '--runInBand', test], {
      cwd: folder,
      encoding: 'utf8',
      timeout: 600000,
      env: { ...process.env, SEED: '1' },
    });
    return result.status === 0 && result.signal === null;
  });
}

/** The project compiled to CommonJS in a folder of its own, with a jest that transforms nothing. */
function compile(folder) {
  const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const options = ['-p', 'tsconfig.json', '--noEmit', 'false', '--rootDir', '.', '--outDir', folder];
  const compiled = spawnSync(process.execPath, [tsc, ...options], { cwd: root, encoding: 'utf8' });
  if (compiled.status !== 0) throw new Error(compiled.stdout);
  fs.copyFileSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  for (const name of ['node_modules', 'build', 'dist', 'examples', 'test/fixtures'])
    if (fs.existsSync(path.join(root, name)) && !fs.existsSync(path.join(folder, name)))
      fs.symlinkSync(path.join(root, name), path.join(folder, name));
  const config = {
    roots: ['<rootDir>/test/unit'],
    testMatch: ['**/*.test.js'],
    transform: {},
    testEnvironment: '<rootDir>/environment.cjs',
    testTimeout: 300000,
    cacheDirectory: path.join(folder, 'cache'),
  };
  fs.writeFileSync(
    path.join(folder, 'environment.cjs'),
    `const { TestEnvironment } = require('jest-environment-node');
module.exports = class extends TestEnvironment {
  handleTestEvent({ name }) {
    if (['test_fn_failure', 'hook_failure', 'error'].includes(name)) process.exit(1);
  }
};
`,
  );
  fs.writeFileSync(path.join(folder, 'jest.config.cjs'), `module.exports = ${JSON.stringify(config)};\n`);
}

const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile(path.join(root, 'tsconfig.json'), ts.sys.readFile).config,
  ts.sys,
  root,
);
const javascript = (file, text) => ts.transpileModule(text, { fileName: file, compilerOptions: options }).outputText;

const files = suites.flatMap(([pattern]) =>
  fs
    .readdirSync(path.join(root, 'src'), { recursive: true })
    .map((name) => `src/${String(name).replaceAll(path.sep, '/')}`)
    .filter((name) => name.endsWith('.ts') && pattern.test(name) && name.includes(match)),
);
const all = files.flatMap(mutantsOf);
let state = Number(seed) >>> 0 || 1;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const chosen = all.length <= Number(wanted) ? all : [];
const left = [...all];
while (chosen.length < Number(wanted) && left.length > 0)
  chosen.push(left.splice(Math.floor(random() * left.length), 1)[0]);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-mutation-'));
try {
  compile(folder);
  const testsOf = (file) => suites.find(([pattern]) => pattern.test(file))[1];
  for (const test of new Set(chosen.flatMap(({ file }) => testsOf(file))))
    if (!run(folder, [test])) throw new Error(`${test} fails without any change; mutants would say nothing`);
  let killed = 0;
  const started = Date.now();
  for (const [done, { file, text, start, end, replacement }] of chosen.entries()) {
    const place = path.join(folder, file.replace(/\.ts$/, '.js'));
    const original = fs.readFileSync(place);
    fs.writeFileSync(place, javascript(file, text.slice(0, start) + replacement + text.slice(end)));
    const survived = run(folder, testsOf(file));
    fs.writeFileSync(place, original);
    if (!survived) killed++;
    else {
      const line = text.slice(0, start).split('\n').length;
      const column = start - text.lastIndexOf('\n', start - 1);
      console.log(`survived: ${file}:${line}:${column}: ${text.slice(start, end)} → ${replacement}`);
    }
    if ((done + 1) % 50 === 0)
      console.log(
        `${done + 1} of ${chosen.length} tried, ${killed} killed, ${Math.round((Date.now() - started) / 1000)} s`,
      );
  }
  const share = ((100 * killed) / chosen.length).toFixed(1);
  console.log(`${killed} of ${chosen.length} mutants killed (${share} %), of ${all.length} there are; seed ${seed}`);
  if (killed < 0.85 * chosen.length) process.exitCode = 1;
} finally {
  fs.rmSync(folder, { recursive: true, force: true });
}
