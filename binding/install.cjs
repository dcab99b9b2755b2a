// Install step: only looks whether a shipped binary loads; builds from source when none does. Nothing is downloaded,
// and the package works when this script is blocked and a prebuilt binary fits.
'use strict';
const path = require('node:path');

const root = path.join(__dirname, '..');
const forced = process.env.npm_config_build_from_source;
let because = '';
if (!forced || forced === 'false') {
  try {
    require(require('node-gyp-build').resolve(root));
    process.exit(0);
  } catch (error) {
    because = `no prebuilt binary fits this machine (${String(error.message).split('\n')[0]}), and `;
  }
}
require('./build.cjs').build({ because });
