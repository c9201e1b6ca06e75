// The server of `npm start`, as a process of its own. Tells its port by a message.

import { serve } from "../../../packages/demo/serve.mjs";

const { address } = await serve({ port: 0 });
process.send(Number(new URL(address).port));
process.on("disconnect", () => process.exit());
