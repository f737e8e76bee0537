import { afterEachTest } from './cleanup.ts'

export interface ServerEvent {
  /** Its name; `comment` for a comment. */
  event: string
  id?: string
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
  data?: any
}

/** An open event stream. */
export interface EventStream {
  status: number
  headers: Headers
  /** The next event; null when the server has closed the stream. */
  next(): Promise<ServerEvent | null>
  /** All that come until the server closes it, but for comments. */
  rest(): Promise<ServerEvent[]>
  /** Hangs up. */
  close(): void
}

const open = new Set<AbortController>()

afterEachTest(async () => {
  for (const controller of open) controller.abort()
  open.clear()
})

/** Reads server-sent events as a browser's EventSource does. */
export async function openEvents(
  url: string,
  headers: Record<string, string> = {},
): Promise<EventStream> {
  const controller = new AbortController()
  open.add(controller)
  const { signal } = controller
  const all = { Accept: 'text/event-stream', ...headers }
  const response = await fetch(url, { headers: all, signal })
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const next = async (): Promise<ServerEvent | null> => {
    for (;;) {
      const end = text.indexOf('\n\n')
      if (end >= 0) {
        const block = text.slice(0, end)
        text = text.slice(end + 2)
        const event = parse(block)
        if (event) return event
        continue
      }
      const chunk = await reader?.read()
      if (!chunk || chunk.done) return null
      text += chunk.value
    }
  }
  return {
    status: response.status,
    headers: response.headers,
    next,
    async rest() {
      const events: ServerEvent[] = []
      for (let event = await next(); event; event = await next()) {
        if (event.event !== 'comment') events.push(event)
      }
      return events
    },
    close: () => controller.abort(),
  }
}

function parse(block: string): ServerEvent | null {
  if (block.startsWith(':')) return { event: 'comment' }
  const fields = new Map(
    block.split('\n').map((line) => {
      const at = line.indexOf(': ')
      return [line.slice(0, at), line.slice(at + 2)]
    }),
  )
  const event = fields.get('event')
  if (!event) return null // Of `retry` alone.
  return {
    event,
    id: fields.get('id') as string,
    data: JSON.parse(fields.get('data') as string),
  }
}
