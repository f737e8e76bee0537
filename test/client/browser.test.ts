import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { build } from 'esbuild'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launchChromium, launchProfile } from '../examples/chromium.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { isProof, variants } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
let client: string
let browser: Browser

beforeAll(async () => {
  const bundle = await build({
    stdin: {
      contents: "export * from './index.ts'; export * from './persist.ts'",
      resolveDir: resolve(import.meta.dirname, '../../lib/client'),
    },
    bundle: true,
    format: 'esm',
    write: false,
  })
  client = bundle.outputFiles[0]?.text as string
  browser = await launchChromium()
}, 60_000)

afterAll(() => browser?.close())

const page = (store: string) => `<!doctype html>
<title>Shop</title>
<script type="module">
  import { createIdempotentFetch, indexedDbStore, localStorageStore } from '/client.js'
  const fetch = createIdempotentFetch({
    persist: ${store}('shop'),
    headers: () => ({ Authorization: 'Bearer s3cret' }),
  })
  window.order = (init) => fetch('/orders', { method: 'POST', ...init }).then(describe)
  window.pending = () => fetch.pending()
  window.resume = async () => {
    const resumed = []
    for await (const { key, response } of fetch.resume()) {
      resumed.push({ key, ...(await describe(response)) })
    }
    return resumed
  }
  const describe = async (response) => ({
    status: response.status,
    replayed: response.replayed,
    attempts: response.attempts,
    body: await response.text(),
  })
  document.title = 'open'
</script>`

/** A shop whose first answer is held back until `respond` is called. */
async function startShop(store: string) {
  const seen: { key: string; credentials: string | undefined }[] = []
  const effects: string[] = []
  let respond = () => {}
  const held = new Promise<void>((resolve) => {
    respond = resolve
  })
  const app = await startApp(database.url, { scope: () => store, wait: '20s' }, (app, express) => {
    app.get('/', (_req, res) => {
      res.type('html').send(page(store))
    })
    app.get('/client.js', (_req, res) => {
      res.type('js').send(client)
    })
    app.post('/orders', express.raw({ type: () => true }), async (req, res) => {
      effects.push(req.body.toString())
      await held
      res.status(201).send(`order ${effects.length}: ${req.body}`)
    })
  })
  app.server.on('request', (req) => {
    const key = req.headers['idempotency-key']
    if (key) seen.push({ key: key as string, credentials: req.headers.authorization })
  })
  const show = async (tab: Page) => {
    await tab.goto(app.url)
    await tab.waitForFunction('document.title === "open"')
  }
  /** Sends an order and does not wait for the answer. */
  const send = async (tab: Page) => {
    await tab.evaluate('void window.order({ body: "three books" }).catch(() => {})')
    await waitFor('the order', () => effects.length > 0)
  }
  return { seen, effects, respond, show, send }
}

interface Order {
  key: string
  status: number
  replayed: boolean
  attempts: number
  body: string
}

const evaluate = <T>(tab: Page, expression: string) => tab.evaluate<T>(expression)

describe.each(variants(['indexedDbStore', 'localStorageStore'], ['indexedDbStore']))(
  'a page that keeps orders in %s',
  (store) => {
    it('repeats the same key when it is reloaded between send and answer', async () => {
      const shop = await startShop(store)
      const context = await browser.newContext()
      const tab = await context.newPage()
      await shop.show(tab)
      await shop.send(tab)
      const stored = await evaluate<object[]>(tab, 'window.pending()')
      expect(stored).toHaveLength(1)
      expect(JSON.stringify(stored)).not.toContain('s3cret')

      await tab.reload()
      await tab.waitForFunction('document.title === "open"')
      const resumed = evaluate<Order[]>(tab, 'window.resume()')
      await waitFor('the repeated order', () => shop.seen.length === 2)
      shop.respond()

      const key = JSON.parse(shop.seen[0]?.key as string)
      const order = { key, status: 201, replayed: true, attempts: 1, body: 'order 1: three books' }
      expect(await resumed).toEqual([order])
      expect(shop.seen[1]).toEqual(shop.seen[0])
      expect(shop.seen[0]?.credentials).toBe('Bearer s3cret')
      expect(shop.effects).toEqual(['three books'])
      expect(await evaluate(tab, 'window.pending()')).toEqual([])
      expect(await evaluate(tab, 'window.resume()')).toEqual([])
      await context.close()
    })

    it('leaves orders to the tab that is at work on them, until it is gone', async () => {
      const shop = await startShop(store)
      const context = await browser.newContext()
      const [first, second] = [await context.newPage(), await context.newPage()]
      await shop.show(first)
      await shop.show(second)
      await shop.send(first)
      expect(await evaluate(second, 'window.pending()')).toHaveLength(1)
      expect(await evaluate(second, 'window.resume()')).toEqual([])
      await first.close()
      shop.respond()
      const resumed = await waitFor('the lock to be free', async () => {
        const orders = await evaluate<Order[]>(second, 'window.resume()')
        return orders.length > 0 && orders
      })
      expect(resumed).toMatchObject([{ status: 201, body: 'order 1: three books' }])
      expect(shop.effects).toHaveLength(1)
      await context.close()
    })

    it('forgets an order that is answered', async () => {
      const shop = await startShop(store)
      shop.respond()
      const context = await browser.newContext()
      const tab = await context.newPage()
      await shop.show(tab)
      const order = await evaluate<Order>(
        tab,
        `(async () => {
        const body = new FormData()
        body.set('file', new Blob([new Uint8Array([0, 255])]), 'x.bin')
        return window.order({ body })
      })()`,
      )
      expect(order).toMatchObject({ status: 201, replayed: false, attempts: 1 })
      expect(order.body).toContain('filename="x.bin"')
      expect(await evaluate(tab, 'window.pending()')).toEqual([])
      await context.close()
    })
  },
)

if (isProof)
  describe('an app that ends before the answer and is started again', () => {
    it('repeats the same key', async () => {
      const shop = await startShop('indexedDbStore')
      const profile = await mkdtemp(join(tmpdir(), 'pawl-profile-'))
      try {
        const before = await launchProfile(profile)
        const first = await before.newPage()
        await shop.show(first)
        await shop.send(first)
        await before.close()
        shop.respond()

        const after = await launchProfile(profile)
        const second = await after.newPage()
        await shop.show(second)
        const resumed = await evaluate<Order[]>(second, 'window.resume()')
        expect(resumed).toMatchObject([
          { status: 201, replayed: true, body: 'order 1: three books' },
        ])
        expect(shop.seen[1]).toEqual(shop.seen[0])
        expect(shop.effects).toHaveLength(1)
        await after.close()
      } finally {
        await rm(profile, { recursive: true, force: true, maxRetries: 5 })
      }
    })
  })
