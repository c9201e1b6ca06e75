// A network of machines that are none: a namespace of Linux for each rank, with a name of its own,
// joined by a bridge, each link of a rate that `tc` holds it to (and a delay, where the kernel has
// netem). Root on Linux. Starts nothing in them.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ask, run } from "../../scripts/tools.mjs";

const PREFIX = "dattn";
const address = (index) => `10.77.0.${index + 1}`;

const ip = (...args) => run("ip", args, { quiet: true });

/** What stands between two machines: bits a second as tc names them, and a delay. */
function shape(link, { rate, delay }) {
  if (!rate) return;
  // (A queue of a tenth of a second: TCP finds the rate.)
  run("tc", ["qdisc", "replace", "dev", link, "root", "handle", "1:", "tbf", "rate", rate, "burst", "512kb", "latency", "100ms"], {
    quiet: true,
  });
  if (delay) run("tc", ["qdisc", "add", "dev", link, "parent", "1:", "netem", "delay", delay], { quiet: true });
}

/** Whether the kernel delays packets. */
export const hasDelays = () => {
  ip("link", "add", `${PREFIX}t`, "type", "veth", "peer", "name", `${PREFIX}u`);
  const done = ask("sh", ["-c", `tc qdisc add dev ${PREFIX}t root netem delay 1ms && echo yes`]);
  ip("link", "del", `${PREFIX}t`);
  return done === "yes";
};

/**
 * Machines `0 … count − 1`; `folder` takes what mpirun is given of them. `end` removes all again.
 */
export function network(count, folder, link = {}) {
  const bridge = `${PREFIX}b`;
  const names = Array.from({ length: count }, (_, index) => `${PREFIX}${index}`);
  const end = () => {
    for (const [index, name] of names.entries()) {
      // (A namespace goes in its own time, and its link with it.)
      ask("ip", ["link", "del", `${PREFIX}o${index}`]);
      ask("ip", ["netns", "del", name]);
      rmSync(join("/etc/netns", name), { recursive: true, force: true });
    }
    ask("ip", ["link", "del", bridge]);
  };
  end();
  try {
    ip("link", "add", bridge, "type", "bridge");
    ip("link", "set", bridge, "up");
    const hosts = ["127.0.0.1 localhost", ...names.map((name, index) => `${address(index)} ${name}`), ""].join("\n");
    for (const [index, name] of names.entries()) {
      const [outer, inner] = [`${PREFIX}o${index}`, `${PREFIX}i${index}`];
      ip("netns", "add", name);
      ip("link", "add", outer, "type", "veth", "peer", "name", inner);
      ip("link", "set", inner, "netns", name);
      ip("link", "set", outer, "master", bridge, "up");
      ip("-n", name, "link", "set", "lo", "up");
      ip("-n", name, "addr", "add", `${address(index)}/24`, "dev", inner);
      ip("-n", name, "link", "set", inner, "up");
      shape(outer, link);
      run("ip", ["netns", "exec", name, "true"], { quiet: true });
      if (link.rate) {
        const args = ["netns", "exec", name, "tc", "qdisc", "replace", "dev", inner, "root", "tbf"];
        ip(...args, "rate", link.rate, "burst", "512kb", "latency", "100ms");
      }
      mkdirSync(join("/etc/netns", name), { recursive: true });
      writeFileSync(join("/etc/netns", name, "hosts"), hosts);
    }
  } catch (error) {
    end();
    throw error;
  }
  const agent = join(folder, "agent.sh");
  // What mpirun takes for ssh: a host and a command. Each has a name of its own, or Open MPI would
  // take them for one machine and its memory for the network.
  writeFileSync(
    agent,
    '#!/bin/sh\nhost=$1; shift\nexec ip netns exec "$host" unshare --uts sh -c \'hostname "$0"; exec sh -c "$1"\' "$host" "$*"\n',
    { mode: 0o755 },
  );
  const hostfile = join(folder, "hosts");
  writeFileSync(hostfile, names.map((name) => `${name} slots=1\n`).join(""));
  const mca = (name, value) => ["--mca", name, value];
  return {
    end,
    /** What mpirun is called with, within the first of them. */
    mpirun: (ranks) => [
      ...["netns", "exec", names[0], "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', names[0]],
      ...["mpirun", "--hostfile", hostfile, "-n", String(ranks), "--map-by", "node", "--bind-to", "none"],
      ...mca("plm_rsh_agent", agent),
      ...mca("btl", "tcp,self"),
      ...mca("btl_tcp_if_include", "10.77.0.0/24"),
      ...mca("oob_tcp_if_include", "10.77.0.0/24"),
    ],
  };
}
