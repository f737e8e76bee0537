/** Produces the server-sent events that report the status changes and the outcome of an execution. */

import type { ExecutionDescription, ExecutionSnapshot, Observer } from '../engine/observer.ts'
import { finalDocument, unfinishedDocument } from './document.ts'

/** How long an EventSource waits before it reconnects, in ms. */
const RECONNECT_MS = 1000

/** Response headers that keep proxies from buffering the event stream. */
export const EVENT_STREAM_HEADERS: [name: string, value: string][] = [
  ['Content-Type', 'text/event-stream; charset=utf-8'],
  // no-transform: a compressing proxy would hold events back until its buffer is full.
  ['Cache-Control', 'no-store, no-transform'],
  ['X-Accel-Buffering', 'no'],
]

/** The id of an event. A client that reconnects sends the last one, so that it gets no event twice. */
export function eventId(
  { incarnation }: ExecutionDescription,
  { attempt, status }: ExecutionSnapshot,
): string {
  return `${incarnation}.${attempt}.${status}`
}

/**
 * Yields the server-sent events (HTML standard, section 9.2) of an execution: `status` for each change, `done`
 * with the outcome, and comments while nothing changes. Ends after `done`, when the signal fires, when the
 * execution is deleted, and when this process stops.
 *
 * @param seen the current state of the execution
 * @param lastId the id of the last event that the client has received
 * @throws PawlError the errors of {@link Observer.until}; the client connects again
 */
export async function* statusEvents(
  observer: Observer,
  description: ExecutionDescription,
  seen: ExecutionSnapshot,
  lastId: string | undefined,
  heartbeatMs: number,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  yield `retry: ${RECONNECT_MS}\n\n`
  let lastSentId = lastId
  for (let snapshot: ExecutionSnapshot | null = seen; snapshot; ) {
    const id = eventId(description, snapshot)
    if (snapshot.outcome) {
      yield formatEvent('done', id, finalDocument(description, snapshot.outcome))
      return
    }
    if (id !== lastSentId)
      yield formatEvent('status', id, unfinishedDocument(description, snapshot))
    lastSentId = id
    const changed = (next: ExecutionSnapshot) => eventId(description, next) !== id
    const next = await observer.until(description, changed, heartbeatMs, signal)
    if (signal.aborted || observer.isStopped) return
    if (next && !changed(next)) yield ':\n\n'
    snapshot = next
  }
}

function formatEvent(name: string, id: string, data: object): string {
  return `event: ${name}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`
}
