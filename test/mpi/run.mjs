// Ranks of MPI that train together: the same bits as one rank, whatever their number; a rank that
// dies ends the job with a sentence, and another number of ranks goes on from its checkpoint; a
// signal saves. Then what it costs: an ordered sum beside MPI_Allreduce, and the efficiency of two
// and four ranks in namespaces whose links `tc` holds to a rate, beside the model of docs/scale.md.
// Installs Open MPI on Debian as root. Closes with "N passed, N failed"; no part of `npm test`.
//
//   node test/mpi/run.mjs [--only bits,death,signal,reduction,efficiency] [--record]
//
// Four ranks on two cores measure communication alone: their arithmetic shares cores, and says so.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { parseArgs } from "node:util";
import { machine } from "../../bench/record.mjs";
import { median } from "../../bench/statistics.mjs";
import { apt, need } from "../../scripts/setup.mjs";
import { ask, CommandFailed, isDebianRoot, onPath, root, run, targetDir } from "../../scripts/tools.mjs";
import { hasDelays, network } from "./network.mjs";

const { values } = parseArgs({ options: { only: { type: "string" }, record: { type: "boolean" } } });
// Root may: where this runs as root, it is a machine of its own.
const env = { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
const work = mkdtempSync(join(tmpdir(), "diffattn-mpi-"));
const program = join(targetDir, "release", "diffattn-train");
const exchange = join(targetDir, "release", "examples", "exchange");

let passed = 0;
let failed = 0;
function check(what, ok, told = "") {
  if (ok) passed++;
  else failed++;
  console.log(`${ok ? "ok    " : "FAILED"}  ${what}${ok ? "" : `: ${told}`}`);
}

/** Runs to the end, or to a limit of time; gives the code and what it printed. */
async function ends(command, args, { limit = 300, onStart } = {}) {
  const child = spawn(command, args, { env, cwd: work, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
  const timer = setTimeout(() => child.kill("SIGKILL"), 1000 * limit);
  const ended = new Promise((resolve) => child.on("close", (code, signal) => resolve({ code: code ?? signal, out, errors })));
  await onStart?.(child);
  const result = await ended;
  clearTimeout(timer);
  return result;
}

const mpirun = (ranks, ...args) => ["--oversubscribe", "--bind-to", "none", "-n", String(ranks), ...args];

/** A file of tokens in which the next one follows from the one before. */
function tokens(path, count, vocabulary) {
  const ids = new Uint16Array(count).fill(1);
  for (let i = 1; i < count; i++) ids[i] = (17 * ids[i - 1] + (i % 2)) % vocabulary;
  const starts = new BigUint64Array(Array.from({ length: Math.ceil(count / 500) }, (_, i) => BigInt(500 * i)));
  const header = Buffer.alloc(32);
  header.write("DATK");
  header.writeUInt32LE(1, 4);
  header.writeUInt32LE(2, 8);
  header.writeBigUInt64LE(BigInt(count), 16);
  header.writeBigUInt64LE(BigInt(starts.length), 24);
  writeFileSync(path, Buffer.concat([header, Buffer.from(ids.buffer), Buffer.from(starts.buffer)]));
}

const small = {
  ...{ model_type: "diffllama", vocab_size: 61, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 3 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, hidden_act: "silu", rms_norm_eps: 1e-5 },
  ...{ max_position_embeddings: 64, lambda_std_dev: 0.1, rope_theta: 10000, tie_word_embeddings: true },
};
writeFileSync(join(work, "small.json"), JSON.stringify(small));
tokens(join(work, "small.tokens"), 60_000, 61);

/** A training of the small model: five units a step, which no number of ranks divides but one. */
const training = (out, steps, ...more) => [
  ...[program, join(work, "small.json"), "--from-scratch", "--data", join(work, "small.tokens"), "--out", join(work, out)],
  ...["--context", "64", "--batch", "20", "--unit", "256", "--lr", "0.01", "--steps", String(steps), "--threads", "1", ...more],
];

/** Weights and moments of a run's last checkpoint. */
function bits(out) {
  const name = readFileSync(join(work, out, "latest"), "utf8").trim();
  const hash = createHash("sha256");
  for (const file of ["model.safetensors", "optimizer.safetensors"]) hash.update(readFileSync(join(work, out, name, file)));
  return `${name} ${hash.digest("hex")}`;
}

let expected;
/** One process, without mpirun. */
async function alone() {
  expected ??= ends(...first(training("alone", 12, "--eval-every", "4"))).then(({ code, errors }) => {
    if (code !== 0) throw new CommandFailed(`one rank: ${errors}`);
    return bits("alone");
  });
  return expected;
}
const first = ([command, ...args]) => [command, args];

async function sameBits() {
  const one = await alone();
  for (const ranks of [1, 2, 3, 4]) {
    const { code, out, errors } = await ends("mpirun", mpirun(ranks, ...training(`ranks-${ranks}`, 12, "--eval-every", "4")));
    check(`${ranks} ranks end`, code === 0, errors);
    check(`${ranks} ranks: weights and moments are one rank's`, code === 0 && bits(`ranks-${ranks}`) === one, errors);
    check(`${ranks} ranks: the first alone tells`, out.split("\n").filter((line) => line.startsWith("step 12/12")).length === 1, out);
  }
}

/** The processes of ranks, as the system lists them. */
const ranksOf = (out) =>
  readdirSync("/proc")
    .filter((id) => /^\d+$/.test(id) && existsSync(`/proc/${id}/cmdline`))
    .filter((id) => {
      const words = ask("cat", [`/proc/${id}/cmdline`]).split("\0");
      return words[0] === program && words.includes(join(work, out));
    });

/** Waits for a checkpoint of a run. */
async function saved(out) {
  for (let i = 0; i < 600 && !existsSync(join(work, out, "latest")); i++) await after(100);
}

async function death() {
  const options = ["--save-every", "2"];
  const whole = await ends(...first(training("unbroken", 400, ...options)));
  check("the run that nothing breaks ends", whole.code === 0, whole.errors);
  const { code, errors } = await ends("mpirun", mpirun(3, ...training("broken", 400, ...options)), {
    onStart: async () => {
      await saved("broken");
      const [, second] = ranksOf("broken");
      process.kill(Number(second), "SIGKILL");
    },
  });
  check("a rank that is killed ends the job", code !== 0, `code ${code}`);
  check("with a sentence", /process rank \d .*(killed|signal 9)|exited on signal 9/s.test(errors), errors);
  check("it broke off before its end", !bits("broken").startsWith("step-000400"), bits("broken"));
  const resumed = await ends("mpirun", mpirun(2, ...training("broken", 400, ...options, "--resume")));
  check("another number of ranks goes on from the last checkpoint", resumed.code === 0, resumed.errors);
  check("to the same bits", bits("broken") === bits("unbroken"), `${bits("broken")} ${bits("unbroken")}`);
  const refused = await ends("mpirun", mpirun(2, ...training("refused", 2, "--freeze", "no_such_weight")));
  check("an error of the ranks is told, and ends the job", refused.code !== 0 && /rank \d: freeze/.test(refused.errors), refused.errors);
}

async function signal() {
  const { code } = await ends("mpirun", mpirun(2, ...training("signalled", 100_000)), {
    onStart: async (child) => {
      while (ranksOf("signalled").length < 2) await after(50);
      await after(500);
      child.kill("SIGUSR1");
    },
  });
  check("SIGUSR1, which mpirun hands on, ends the step and saves", existsSync(join(work, "signalled", "latest")), `code ${code}`);
}

const figures = [];
const tell = (line) => {
  figures.push(line);
  console.log(`        ${line}`);
};

async function reduction() {
  for (const ranks of [2, 4]) {
    const { code, out, errors } = await ends("mpirun", mpirun(ranks, exchange, "7000000"));
    check(`${ranks} ranks: an ordered sum`, code === 0, errors);
    if (code !== 0) continue;
    const { ordered, allreduce, off } = JSON.parse(out);
    check(`${ranks} ranks: it is the sum`, off < 1e-5, `off by ${off}`);
    const milliseconds = (seconds) => (1000 * seconds).toFixed(1);
    tell(
      `${ranks} ranks, 28 MB in memory: ordered ${milliseconds(ordered)} ms, MPI_Allreduce ${milliseconds(allreduce)} ms (${(ordered / allreduce).toFixed(2)} times)`,
    );
  }
}

const MEGA = 1e6;
/** Bits a second, and what `tc` calls them. */
const RATES = { "10gbit": 1e4 * MEGA, "1gbit": 1e3 * MEGA, "200mbit": 200 * MEGA };
/** What a link between machines of one building has, in each direction. */
const DELAY = "0.2ms";
const UNIT = 1024;
const UNITS = 4;

/**
 * Tokens a second of a training of the 7M model, the median of its steps but the first: one rank,
 * or several over links.
 */
async function speed(ranks, link, out = `speed-${ranks}-${link?.rate ?? "one"}`) {
  const training = [
    ...[
      program,
      join(root, "examples/model/config.json"),
      "--from-scratch",
      "--data",
      join(work, "large.tokens"),
      "--out",
      join(work, out),
    ],
    ...["--context", "256", "--batch", "16", "--unit", String(UNIT), "--lr", "0.001", "--steps", "5", "--threads", "1", "--json"],
  ];
  const net = link && network(ranks, work, link);
  try {
    const [command, args] = net ? ["ip", [...net.mpirun(ranks), ...training]] : first(training);
    const { code, out: told, errors } = await ends(command, args, { limit: 600 });
    if (code !== 0) throw new CommandFailed(errors);
    const steps = told
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).tokensPerSecond);
    const { size } = statSync(join(work, out, "step-000005", "model.safetensors"));
    return { speed: median(steps.slice(1)), bits: bits(out), weights: size };
  } finally {
    net?.end();
  }
}

/** Tokens a second, in all, of so many trainings at once that tell each other nothing. */
async function together(count) {
  const all = await Promise.all(Array.from({ length: count }, (_, index) => speed(1, undefined, `apart-${count}-${index}`)));
  return all.reduce((sum, one) => sum + one.speed, 0);
}

/** Floats of an exchange over links: those of the 7M model. */
const EXCHANGED = 7e6;

/** Seconds in which the gradients of a round cross links, alone: half of an exchange. */
async function crossing(ranks, link) {
  const net = network(ranks, work, link);
  try {
    const { code, out, errors } = await ends("ip", [...net.mpirun(ranks), exchange, String(EXCHANGED), "3"], { limit: 120 });
    if (code !== 0) throw new CommandFailed(errors);
    return JSON.parse(out).ordered / 2;
  } finally {
    net.end();
  }
}

/**
 * Seconds of a step by docs/scale.md: rounds of a unit each, whose gradients' last bucket nothing
 * hides, and at the end the parameters; `sent`: seconds of either on their way.
 */
function modelled(ranks, unitSeconds, { sent, hidden }) {
  const rounds = Math.ceil(UNITS / ranks);
  return rounds * Math.max(unitSeconds, unitSeconds * (1 - hidden) + sent) + sent;
}

/** The share of a unit's time in which gradients are on their way: the backward pass of layers. */
const HIDDEN = 0.6;

async function efficiency() {
  if (!isDebianRoot) {
    console.log("        efficiency: needs root, for namespaces and tc");
    return;
  }
  tokens(join(work, "large.tokens"), 200_000, 4096);
  const delay = hasDelays() ? DELAY : undefined;
  tell(`links have a rate${delay ? ` and a delay of ${delay}` : "; this kernel has no netem, so they have no delay beside their own"}`);
  const one = await speed(1);
  tell(`one rank on one thread: ${one.speed.toFixed(0)} tokens/s`);
  for (const ranks of [2, 4]) {
    // What these cores make of so many processes: memory, and cores where they are fewer, are shared.
    const apart = await together(ranks);
    const unitSeconds = (ranks * UNIT) / apart;
    const cores = Math.min(ranks, availableParallelism());
    tell(`${ranks} trainings at once on ${cores} cores that tell each other nothing: ${apart.toFixed(0)} tokens/s`);
    for (const [rate, bitsPerSecond] of Object.entries(RATES)) {
      const sent = (await crossing(ranks, { rate, delay })) * (one.weights / 4 / EXCHANGED);
      const measured = await speed(ranks, { rate, delay });
      check(`${ranks} ranks over ${rate}: one rank's bits`, measured.bits === one.bits, measured.bits);
      const expected = (UNITS * UNIT) / modelled(ranks, unitSeconds, { sent, hidden: HIDDEN });
      const of = (tokensPerSecond) => `${((100 * tokensPerSecond) / apart).toFixed(0)} %`;
      const atRate = ((one.weights * (ranks - 1)) / ranks / bitsPerSecond) * 8;
      tell(
        `${ranks} ranks on ${cores} cores over ${rate}: gradients alone ${(1000 * sent).toFixed(0)} ms (${(1000 * atRate).toFixed(0)} at that rate), ${measured.speed.toFixed(0)} tokens/s, efficiency ${of(measured.speed)}, modelled ${of(expected)}`,
      );
    }
  }
}

const parts = { bits: sameBits, death, signal, reduction, efficiency };
try {
  need(
    "Open MPI, clang",
    () => onPath("mpirun") && onPath("clang") && onPath("ip"),
    () => apt("libopenmpi-dev", "openmpi-bin", "libclang-dev", "clang", "iproute2"),
  );
  run("cargo", ["build", "--release", "--locked", "-p", "diffattn-mpi", "--features", "mpi", "--bins", "--examples"]);
  for (const name of values.only?.split(",") ?? Object.keys(parts)) {
    if (!(name in parts)) throw new CommandFailed(`there is no part "${name}"; parts: ${Object.keys(parts).join(", ")}`);
    console.log(`\n== ${name}`);
    await parts[name]();
  }
  if (values.record && failed === 0)
    writeFileSync(join(root, "test/mpi/record.json"), `${JSON.stringify({ ...machine(), figures }, undefined, 2)}\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
