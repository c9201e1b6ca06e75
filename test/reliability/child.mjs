// Runs one attack on one backend in this process, and tells its figures and misses to run.mjs,
// which started it.

import { openSync, writeSync } from "node:fs";

const { name, ...options } = JSON.parse(process.argv[2]);
const { default: attack } = await import(`./attacks/${name}.mjs`);

const file = openSync(options.trace, "w");
/**
 * Writes where the attack stands over what stood there: whoever finds this process dead or silent
 * reads it.
 */
const trace = (index, what) => {
  writeSync(file, `${index} ${what}`.slice(0, 200).padEnd(200), 0);
};
/** Tells a miss; those of one kind are shown once. */
const miss = (index, what, kind = what) => process.send({ miss: `${index === "" ? "" : `case ${index}: `}${what}`, kind });

const figures = await attack.run({ ...options, trace, miss });
process.send({ figures }, () => process.exit());
