import type { Description, Observer, Sight } from '../engine/observer.ts'
import { finalDocument, unfinishedDocument } from './document.ts'

/** How soon an EventSource connects again after a lost connection, in ms. */
const RETRY_MS = 1000

/** Headers of an event stream that nothing on its way holds back. */
export const EVENT_STREAM_HEADERS: [name: string, value: string][] = [
  ['Content-Type', 'text/event-stream; charset=utf-8'],
  // Compression would collect events until it has enough of them.
  ['Cache-Control', 'no-store, no-transform'],
  ['X-Accel-Buffering', 'no'],
]

/** Names what an event tells, so that whoever connects again is not told twice. */
export function eventId({ born }: Description, { attempt, status }: Sight): string {
  return `${born}.${attempt}.${status}`
}

/**
 * The server-sent events (HTML standard, section 9.2) of an execution: `status` for each change, `done`
 * with the outcome, and comments while nothing happens. Ends after `done`, when the signal fires, when the
 * execution is gone, and when this process stops.
 *
 * @param seen how it stands now
 * @param lastId what the client has heard last
 * @throws PawlError as the observer does; the client connects again
 */
export async function* statusEvents(
  observer: Observer,
  description: Description,
  seen: Sight,
  lastId: string | undefined,
  heartbeatMs: number,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  yield `retry: ${RETRY_MS}\n\n`
  let told = lastId
  for (let sight: Sight | null = seen; sight; ) {
    const id = eventId(description, sight)
    if (sight.outcome) {
      yield event('done', id, finalDocument(description, sight.outcome))
      return
    }
    if (id !== told) yield event('status', id, unfinishedDocument(description, sight))
    told = id
    const changed = (next: Sight) => eventId(description, next) !== id
    const next = await observer.until(description, changed, heartbeatMs, signal)
    if (signal.aborted || observer.isStopped) return
    if (next && !changed(next)) yield ':\n\n'
    sight = next
  }
}

function event(name: string, id: string, data: object): string {
  return `event: ${name}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`
}
