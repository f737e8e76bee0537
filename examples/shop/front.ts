/** Serves the page, what it shows, live, and its buttons. The shop itself is another process. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { z } from 'zod'
import type { Board } from './board.ts'
import type { Purchase, Scenario } from './scenarios.ts'

const press = z.object({
  scenario: z.enum(['order', 'double-click', 'retry', 'other-amount', 'kill']),
  pawl: z.boolean(),
  item: z.string().min(1).max(40),
  amount: z.int().positive().max(1_000_000),
})

type Play = (scenario: Scenario, purchase: Purchase) => boolean

export async function startFront(options: {
  host: string
  port: number
  board: Board
  play: Play
}) {
  const app = express()
  const pages = new Set<express.Response>()

  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'content-security-policy': "default-src 'self'" })
    next()
  })
  app.use(express.static(fileURLToPath(new URL('./page/', import.meta.url))))

  app.get('/live', (req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    pages.add(res)
    const stop = options.board.watch((snapshot) => {
      res.write(`data: ${JSON.stringify(snapshot)}\n\n`)
    })
    req.once('close', () => {
      stop()
      pages.delete(res)
    })
  })

  app.post('/scenarios', express.json(), (req, res) => {
    const pressed = press.safeParse(req.body)
    if (!pressed.success) {
      res.status(400).json({ error: z.prettifyError(pressed.error) })
      return
    }
    const { scenario, ...purchase } = pressed.data
    res.status(202).json({ started: options.play(scenario, purchase) })
  })

  const server = app.listen(options.port, options.host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    /** Says good-bye first, so that open pages stop asking instead of filling their consoles. */
    async close() {
      server.close()
      const goodbyes = [...pages].map((page) => once(page.end('event: bye\ndata:\n\n'), 'close'))
      await Promise.all(goodbyes)
    },
  }
}
