// `npm test` on a fresh clone: everything that the tests need, made before jest starts. Node's built-in modules only.
'use strict';
const { ensure } = require('../binding/ensure.cjs');
const { gpusim } = require('./tools/gpusim.cjs');

ensure({ tests: true });
gpusim();
