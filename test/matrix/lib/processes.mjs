// Programs that the places start: what they print is kept, each has a limit of time, and none
// outlives its place, whatever it started itself. Knows nothing of the matrix.
import { spawn, spawnSync } from "node:child_process";
import { launch as programOf, plainEnvironment } from "../../../scripts/tools.mjs";

const inherited = plainEnvironment();
/** Nothing asks, colours what it prints, or tells anyone that it was used. */
const quiet = { CI: "1", NO_COLOR: "1", DO_NOT_TRACK: "1", NEXT_TELEMETRY_DISABLED: "1", ASTRO_TELEMETRY_DISABLED: "1" };

const open = new Set();

/** Ends a program with all that it started: on POSIX it leads a group of its own. */
function end(child) {
  if (process.platform === "win32") spawnSync("taskkill", ["/pid", String(child.pid), "/T", "/F"], { stdio: "ignore" });
  else
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // The whole group has ended.
    }
}

/** Ends all that is still open. */
export function endAll() {
  for (const child of open) end(child);
  open.clear();
}
process.on("exit", endAll);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** The last of what a program printed: the closing lines hold what a reader sees first. */
const last = (text) => text.trimEnd().split("\n").slice(-60).join("\n");

function begin(command, args, { cwd, env = {} }) {
  const child = spawn(...programOf(command, args), {
    cwd,
    env: { ...inherited, ...quiet, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: process.platform !== "win32",
    windowsHide: true,
  });
  open.add(child);
  const running = { child, printed: "", stdout: "", onText: undefined, shown: [command, ...args].join(" ") };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (piece) => {
      running.printed += piece;
      if (stream === child.stdout) running.stdout += piece;
      running.onText?.();
    });
  }
  running.ended = new Promise((resolve) => {
    child.on("error", (error) => resolve(error.message));
    // What it started and left would hold its pipes open.
    child.on("exit", () => end(child));
    child.on("close", (code, signal) => resolve(code === 0 ? "" : (signal ?? `exit ${code}`)));
  });
  return running;
}

const failure = (running, why) => new Error(`${running.shown}: ${why}\n${last(running.printed)}`);

/** A limit of time: rejects after it, unless `done` was called. */
function limited(seconds, why) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(why()), seconds * 1000);
  });
  return { late, done: () => clearTimeout(timer) };
}

/**
 * Runs a program to its end and returns what it printed to standard output; rejects with all of it
 * when it fails or takes too long.
 */
export async function exec(command, args, { timeout = 120, ...options } = {}) {
  const running = begin(command, args, options);
  const { late, done } = limited(timeout, () => failure(running, `no end after ${timeout} s`));
  try {
    const how = await Promise.race([running.ended, late]);
    if (how) throw failure(running, how);
    return running.stdout;
  } finally {
    done();
    end(running.child);
    open.delete(running.child);
  }
}

/**
 * Starts a server and waits for what it prints once it serves. Returns
 * `{ match, printed(), stop(), terminate(), ended }`; a place's end stops it, too. `terminate` asks
 * it to end, as a machine that shuts down would; `ended` is how it did: "" where it did well.
 */
export async function start(command, args, { until, timeout = 60, ...options }) {
  const running = begin(command, args, options);
  const { late, done } = limited(timeout, () => failure(running, `nothing that matches ${until} after ${timeout} s`));
  const stop = async () => {
    end(running.child);
    open.delete(running.child);
    await running.ended;
  };
  try {
    const match = await Promise.race([
      new Promise((resolve) => {
        running.onText = () => {
          const found = until.exec(running.printed);
          if (found) resolve(found);
        };
      }),
      running.ended.then((how) => {
        throw failure(running, how || "it ended");
      }),
      late,
    ]);
    return { match, printed: () => last(running.printed), stop, terminate: () => running.child.kill("SIGTERM"), ended: running.ended };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    done();
  }
}
