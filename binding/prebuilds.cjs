// `npm run prebuilds`: prebuildify with CMake as its builder. It compiles, strips, and moves the addon to
// prebuilds/<platform>-<arch>/hpformer.<libc>.node. Through a shell, because Windows starts no .cjs file directly.
'use strict';
const path = require('node:path');
const prebuildify = require('prebuildify');

/** `builder`: a command that leaves the addon in `<folder>/build/Release`. */
function prebuilds(folder, builder, done) {
  const arch = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length);
  const options = {
    cwd: folder,
    napi: true,
    name: 'hpformer',
    tagLibc: true,
    strip: process.platform !== 'win32',
    nodeGyp: builder,
    shell: true,
    ...(arch ? { arch } : {}),
    ...(process.env.HPFORMER_STRIP ? { stripBin: process.env.HPFORMER_STRIP } : {}),
  };
  prebuildify(options, done);
}

module.exports = { prebuilds };
if (require.main === module) {
  // A release carries machine code for every known device; a build for oneself only what the driver can translate.
  process.env.HPFORMER_CUDA_ARCHITECTURES ??= 'all';
  prebuilds(path.join(__dirname, '..'), `"${process.execPath}" binding/build.cjs`, (error) => {
    if (error) {
      console.error(`hpformer: ${error.message}`);
      process.exit(1);
    }
  });
}
