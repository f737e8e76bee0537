/** Serves the page, what it shows, live, and what its buttons need. The shop is another process. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { z } from 'zod'
import type { Board } from './board.ts'
import type { Moment } from './saboteur.ts'

/** What the page can do, once everything is there. */
export interface Stage {
  line: express.Router
  /** Resolves when the shop will be killed at that moment of the cart's order. */
  sabotage: (moment: Moment, cart: string) => Promise<void>
  /** Brings the board up to date. */
  look: () => Promise<void>
}

const sabotage = z.object({
  moment: z.enum(['while-charging', 'before-order']),
  cart: z.string().min(1).max(40),
})

const page = fileURLToPath(new URL('./page/', import.meta.url))
/** What the pages of all examples share. */
const shared = fileURLToPath(new URL('../support/page/', import.meta.url))
/** `pawl/client` as it is published: modules that a browser loads without a bundler. */
const client = dirname(fileURLToPath(import.meta.resolve('pawl/client')))

export async function startFront(options: { host: string; port: number; board: Board }) {
  const { board } = options
  const app = express()
  const pages = new Set<express.Response>()
  let stage: Stage | undefined

  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'content-security-policy': "default-src 'self'" })
    next()
  })
  app.use(express.static(page), express.static(shared))
  app.use('/pawl/client', express.static(client))

  app.get('/live', (req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    pages.add(res)
    const stop = board.watch((snapshot) => {
      res.write(`data: ${JSON.stringify(snapshot)}\n\n`)
    })
    req.once('close', () => {
      stop()
      pages.delete(res)
    })
  })

  const whenOpen =
    (handle: (stage: Stage, ...rest: Parameters<express.RequestHandler>) => unknown) =>
    (...[req, res, next]: Parameters<express.RequestHandler>) =>
      stage ? handle(stage, req, res, next) : res.sendStatus(503)

  app.use(
    '/line',
    whenOpen(({ line }, ...rest) => line(...rest)),
  )

  app.post(
    '/sabotage',
    express.json(),
    whenOpen(async (stage, req, res) => {
      const asked = sabotage.safeParse(req.body)
      if (!asked.success) return res.status(400).json({ error: z.prettifyError(asked.error) })
      await stage.sabotage(asked.data.moment, asked.data.cart)
      return res.status(201).json({})
    }),
  )

  app.post(
    '/look',
    whenOpen(async (stage, _req, res) => {
      await stage.look()
      res.json({ version: board.snapshot.version })
    }),
  )

  const server = app.listen(options.port, options.host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    open(opened: Stage) {
      stage = opened
    },
    /** Says good-bye first, so that open pages stop asking instead of filling their consoles. */
    async close() {
      server.close()
      const goodbyes = [...pages].map((page) => once(page.end('event: bye\ndata:\n\n'), 'close'))
      await Promise.all(goodbyes)
    },
  }
}
