/** `npm run example:chatbot` */
import { runExample } from '../support/run-example.ts'

await runExample({
  server: new URL('./server.ts', import.meta.url),
  // Somebody else's: a small stand-in for a model provider, unless MODEL_URL names a real one.
  others: process.env.MODEL_URL
    ? {}
    : { MODEL_URL: new URL('./stand-in/server.ts', import.meta.url) },
  hints: (url) => `  Pawl's chatbot is open.

    Page   ${url}

    Ask for a refund: it looks the order up, and waits for a colleague's yes.
    Kill the server in the middle of an answer (kill -9, its process is on the page): the answer goes
    on where it stopped. Reload the page in the middle of one: it is all there.

    The model is a stand-in. A real one:
    MODEL_URL=https://api.anthropic.com MODEL=claude-… MODEL_KEY=… npm run example:chatbot`,
})
