// The local side of a worker's pool: the channel on which a thread tells its trap, and the threads
// that start here. Starts no worker.

import type { OpenPool } from "../platform.js";
import type { Script } from "../port.js";

/** What platforms do differently for it. */
interface Ways {
  openChannel: (name: string) => BroadcastChannel;
  /**
   * Starts the script as a thread that takes `start`; tells `port` "" once it is ready, else why it
   * is not. Absent where the worker starts its threads.
   */
  startThread?: ((script: Script, start: unknown, port: MessagePort) => { terminate: () => void }) | undefined;
}

export const poolsBy =
  ({ openChannel, startThread }: Ways): OpenPool =>
  (script, threads, part, onTrap) => {
    const name = `diffattn-${performance.now()}-${Math.random()}`;
    // A pool thread's trap leaves the worker waiting inside WASM for ever; the thread tells it
    // here.
    const channel = openChannel(name);
    channel.onmessage = ({ data }) => onTrap(String(data));
    const started: { terminate: () => void }[] = [];
    const aborts = new Int32Array(new SharedArrayBuffer(4));
    return {
      told: { script, threads, channel: name, part, outside: startThread !== undefined, aborts },
      noteAbort: () => void Atomics.add(aborts, 0, 1),
      startThread(start, port) {
        if (startThread) started.push(startThread(script, start, port));
      },
      end() {
        for (const thread of started) thread.terminate();
        channel.close();
      },
    };
  };
