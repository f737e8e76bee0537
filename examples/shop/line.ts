/**
 * The line between the page and the shop. What the client in the page sends goes to the shop as it is,
 * and what comes back is told in headers: a browser fills its console with every connection that breaks
 * and every 422, and does not tell the page how a connection broke.
 */
import express, { type Router } from 'express'

const SENT = ['content-type', 'idempotency-key', 'customer']
const RETURNED = ['content-type', 'date', 'idempotent-replayed', 'retry-after']

export function lineTo(shopUrl: string, heardKey: (key: string) => void): Router {
  const line = express.Router()
  line.use(express.raw({ type: () => true }), async (req, res) => {
    const gone = new AbortController()
    res.once('close', () => gone.abort())
    // The key, without the quotes around it.
    heardKey(req.get('idempotency-key')?.replaceAll('"', '') ?? '')
    try {
      const answer = await fetch(shopUrl + req.url, {
        method: req.method,
        headers: SENT.map((name): [string, string] => [name, req.get(name) ?? '']),
        body: req.body,
        signal: gone.signal,
      })
      const body = Buffer.from(await answer.arrayBuffer())
      for (const name of RETURNED) {
        const value = answer.headers.get(name)
        if (value !== null) res.set(name, value)
      }
      res.set('shop-status', String(answer.status)).send(body)
    } catch (error) {
      if (!gone.signal.aborted) res.set('shop-error', whatHappened(error)).end()
    }
  })
  return line
}

function whatHappened(error: unknown): string {
  const cause = (error as { cause?: { code?: string } }).cause
  return cause?.code === 'ECONNREFUSED' ? 'Connection refused' : 'Connection lost'
}
