/** Sends a statement again whose connection broke. */

import { setTimeout as sleep } from 'node:timers/promises'
import { isConnectionError } from './database.ts'
import { alsoSentBefore } from './statement-error.ts'

/** How often a statement is sent at most, if the connection breaks each time, by whoever has a deadline of its own. */
export const SENDS = 3

/** The longest pause before a statement is sent again, in ms: the first time, and after doubling. */
const RESEND_MS = 20
const MAX_RESEND_MS = 1000

/** How much earlier than asked a timer may fire, in ms. */
const EARLY_MS = 2

/**
 * Sends a statement again if its connection broke, or could not be opened. Safe for Pawl's own statements,
 * all of which may be sent twice, and for the beginning of a transaction. What ran into the timeout is not
 * sent again.
 * @param deadline after which it is not sent again, by performance.now()
 * @param again whether to send it again after it was sent so often. Default: up to SENDS times
 */
export async function resend<T>(
  send: () => Promise<T>,
  deadline: number,
  again = (sent: number) => sent < SENDS,
): Promise<T> {
  const earlier: unknown[] = []
  for (let sent = 1; ; sent++) {
    try {
      return await send()
    } catch (error) {
      const isLate = performance.now() >= deadline - EARLY_MS
      if (!isConnectionError(error) || isLate || !again(sent)) {
        alsoSentBefore(error, earlier)
        throw error
      }
      earlier.push(error)
    }
    // Full jitter, so that the connections of all processes are not opened in step.
    await sleep(Math.min(RESEND_MS * 2 ** (sent - 1), MAX_RESEND_MS) * Math.random())
  }
}
