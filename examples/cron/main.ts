/** `npm run example:cron` */
import { runExample } from '../support/run-example.ts'

await runExample({
  server: new URL('./server.ts', import.meta.url),
  // A second process of the same app: every tick is still run once.
  others: { SECOND_URL: new URL('./server.ts', import.meta.url) },
  hints: (
    url,
  ) => `  Pawl's cron example is open: a report every ten seconds, by one of two processes.

    Page  ${url}

    Kill a process (kill -9, they are on the page): the other one goes on, and no tick is lost.
    CRON='*/5 * * * * *' and MISSED=all (or skip, or last) change the schedule.`,
})
