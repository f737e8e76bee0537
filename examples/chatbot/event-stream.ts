import type { Request, Response } from 'express'
import type { ChatEvent } from './transcript.ts'

const EVERY_MS = 100

/**
 * What has happened and what happens, as server-sent events. Each has its number: a browser whose
 * connection has broken says which was the last it saw (Last-Event-ID), to whatever process is there then.
 */
export async function eventStream(
  req: Request,
  res: Response,
  after: (n: number) => Promise<ChatEvent[]>,
): Promise<void> {
  let open = true
  req.once('close', () => {
    open = false
  })
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  // How soon the browser comes back if the server dies, in ms; and an event without a number.
  res.write(`retry: 500\nevent: server\ndata: ${process.pid}\n\n`)
  let last = Number(req.get('last-event-id')) || 0
  while (open) {
    // A database that is away for a moment has nothing new.
    for (const { n, ...event } of await after(last).catch(() => [])) {
      res.write(`id: ${n}\ndata: ${JSON.stringify(event)}\n\n`)
      last = n
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
  }
}
