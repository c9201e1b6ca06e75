// Pools of threads in browsers: a script of its own, which pages that are not cross-origin isolated
// never load.

import { poolsBy } from "./backend/pool-client.js";
import { POOL_THREAD, type Script } from "./port.js";
import { saidOf, startWeb } from "./start-script.js";

export const openPool = poolsBy({
  openChannel: (name) => new BroadcastChannel(name),
  // (On a page's main thread alone, which worker.ts has the reason for.)
  startThread:
    typeof document === "undefined"
      ? undefined
      : (script: Script, message: unknown, port: MessagePort) => {
          const thread = startWeb(script, POOL_THREAD);
          thread.onmessage = () => port.postMessage("");
          thread.onerror = (event) => port.postMessage(saidOf(event));
          thread.postMessage(message);
          return { terminate: () => thread.terminate() };
        },
});
