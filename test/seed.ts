/** Where the random tests of this run begin: new in each run, `SEED=<n>` repeats one. Names of tests and failures print it. */
export const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
