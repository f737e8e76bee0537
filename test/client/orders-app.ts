import type { Request } from 'express'
import { expect } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import type { TestDatabase } from '../helpers/database.ts'
import { type Fault, type FaultyProxy, startFaultyProxy } from '../helpers/faulty-proxy.ts'

/** An app with Pawl behind a proxy that loses requests and answers. */
export interface OrdersApp {
  url: string
  proxy: FaultyProxy
  /** The bodies that took effect, in order. */
  effects: unknown[]
  /** What arrived at the proxy. */
  requests: { method: string; key: string | undefined; type: string | undefined }[]
}

const open: FaultyProxy[] = []

afterEachTest(async () => {
  await Promise.all(open.splice(0).map((proxy) => proxy.close()))
})

/**
 * `/orders` echoes what it got, with the number of its effect.
 * @param faults of the requests, in order; then all goes well
 */
export async function startOrders(
  database: TestDatabase,
  faults: Fault[] = [],
  handle?: (req: Request, effect: number) => { status: number; body: unknown } | undefined,
): Promise<OrdersApp> {
  const effects: unknown[] = []
  const requests: OrdersApp['requests'] = []
  const server = await startApp(
    database.url,
    { scope: () => 'orders', resumable: true },
    (app, express) => {
      app.all('/orders', express.text({ type: () => true }), (req, res) => {
        const answer = handle?.(req, effects.length)
        if (answer) {
          res.status(answer.status).json(answer.body)
          return
        }
        effects.push(req.body)
        res.status(201).json({ effect: effects.length, body: req.body })
      })
    },
  )
  const proxy = await startFaultyProxy(server.url, (request) => {
    const { method = '', headers } = request
    requests.push({
      method,
      key: headers['idempotency-key'] as string | undefined,
      type: headers['content-type'],
    })
    return faults.shift() ?? 'none'
  })
  open.push(proxy)
  return { url: `${proxy.url}/orders`, proxy, effects, requests }
}

/** Expects that a client's order took effect once, however often the faults made the client send it. */
export function expectOneOrder(
  response: { attempts?: number; key?: string | undefined; replayed?: boolean },
  { effects, requests }: OrdersApp,
  fault: string,
): void {
  expect(response.attempts).toBe(requests.length)
  expect(requests.length).toBeGreaterThan(1)
  expect(new Set(requests.map(({ key }) => key))).toEqual(new Set([`"${response.key}"`]))
  expect(effects).toHaveLength(1)
  const reached = fault !== 'reset before' && fault !== '503 before'
  expect(response.replayed).toBe(reached)
}
