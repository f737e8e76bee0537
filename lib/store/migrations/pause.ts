/** Waits between looks and tries of a migration. */

import { setTimeout as sleep } from 'node:timers/promises'

/** Waits, and keeps the process alive meanwhile. Rejects with the signal's reason if it fires. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { ...(signal && { signal }) }).catch(() => {})
  signal?.throwIfAborted()
}
