/** `npm run example:fulfilment` */
import { runExample } from '../support/run-example.ts'

await runExample({
  server: new URL('./server.ts', import.meta.url),
  hints: (url) => `  Pawl's order fulfilment is open.

    Page    ${url}

    Order   curl -i ${url}/orders -H 'Idempotency-Key: first' -H 'Content-Type: application/json' \\
              -d '{"item":"Moka pot","amount":3400,"address":"Paris"}'
            Send it again: the same answer, one charge, one parcel.
    Ask     curl ${url}/operations/<the end of its Location> -H 'Prefer: wait=30'
    Cancel  curl -X POST ${url}/orders/<id>/cancel    while it is being packed
    Kill    kill -9 the server, at any moment: curl ${url}/pid

    "address":"nowhere" fails for good, and everything is undone; "storm" fails twice.`,
})
