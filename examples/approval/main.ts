/** `npm run example:approval` */
import { runExample } from '../support/run-example.ts'

await runExample({
  server: new URL('./server.ts', import.meta.url),
  hints: (url) => `  Pawl's expense approval is open.

    Page  ${url}

    Ask for money, then press approve and reject in two windows at once: the first click wins.
    Kill the server while it waits (kill -9, its process is on the page), and click then.

    It waits for 3 days, and reminds every day. Nobody has to wait that long:
    PATIENCE='40 seconds' REMIND_EVERY='10 seconds' npm run example:approval`,
})
