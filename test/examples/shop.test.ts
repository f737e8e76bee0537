import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { proofOnly } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { launchChromium } from './chromium.ts'
import { descendantsOf, stillRunning } from './processes.ts'
import { ShopPage } from './shop-page.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Processes start in each test; a busy machine takes its time. */
const SLOW = { timeout: 120_000 }

let shop: ChildProcess
let browser: Browser
let page: ShopPage
let shopUrl: string
let printed = ''

beforeAll(async () => {
  const { DATABASE_URL: _, ...env } = process.env
  shop = spawn(process.execPath, ['examples/support/start.js', 'shop'], {
    cwd: root,
    env: { ...env, PORT: '0', PACE: '0.2' },
  })
  for (const output of [shop.stdout, shop.stderr]) {
    output?.on('data', (chunk) => {
      printed += chunk
    })
  }
  browser = await launchChromium()
  page = new ShopPage(await browser.newPage({ viewport: { width: 1280, height: 800 } }))
  const url = await waitFor(
    'the URL',
    () => {
      if (shop.exitCode !== null) throw new Error(`The example ended:\n${printed}`)
      return /Page\s+(http\S+)/.exec(printed)?.[1]
    },
    100_000,
  )
  shopUrl = /Shop\s+(http\S+)/.exec(printed)?.[1] as string
  await page.open(url)
}, 240_000)

afterAll(async () => {
  await browser?.close()
  // Its processes end with it, however it ends.
  shop?.kill('SIGKILL')
})

/** The answer may be there before it is known that the shop is back. */
const lastRetry = ({ events }: { events: string[] }) =>
  events.findLast((event) => event.includes('Retry'))

describe('the example shop with Pawl', SLOW, () => {
  const oneOfEach = { verdict: 'good', title: '1 order, 1 charge', orders: 1, charges: 1 }
  const behindTheCharge = [
    'reserve stock attempt 1, replayed',
    'charge card attempt 1, replayed',
    'record order attempt 2',
    'send receipt attempt 2',
  ]

  it('takes an order and charges it once', async () => {
    const shown = await page.press('Order and pay')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events).toEqual([expect.stringMatching(/Order 201 Created attempt 1 \d+ ms/)])
    expect(shown.journal).toEqual([
      'reserve stock attempt 1',
      'charge card attempt 1',
      'record order attempt 1',
      'send receipt attempt 1',
    ])
    expect(await page.totals()).toEqual({ orders: 1, charges: 1 })
  })

  it('replays the answer to a retry with the same key', async () => {
    const shown = await page.press('Retry with the same key')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events[1]).toMatch(/Retry 201 Created replayed attempt 1/)
    expect(await page.totals()).toEqual({ orders: 1, charges: 1 })
  })

  it('gives the second of two clicks the answer of the first', async () => {
    const shown = await page.press('Order with a double click')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events).toHaveLength(2)
    expect(shown.events.every((event) => /Click \d 201 Created/.test(event))).toBe(true)
    expect(shown.events.filter((event) => event.includes('replayed'))).toHaveLength(1)
  })

  it('refuses another amount under the same key', async () => {
    const shown = await page.press('Same key, another amount')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events[2]).toMatch(/Now €44 422 Unprocessable Content .*another request/)
  })

  proofOnly('charges once when it is killed while it charges', async () => {
    const shown = await page.press('Kill the server while it charges')
    expect(shown).toMatchObject(oneOfEach)
    const story = shown.events.join(', ')
    expect(story).toMatch(/Order Connection lost.*Shop killed.*Shop is back/)
    expect(lastRetry(shown)).toMatch(/Retry \d+ 201 Created (replayed )?attempt 2/)
    expect(shown.journal).toEqual([
      'reserve stock attempt 1, replayed',
      'charge card attempt 2',
      'record order attempt 2',
      'send receipt attempt 2',
    ])
    expect((await page.rows('ledger'))[0]).toContain('asked 2 times, charged once')
    expect(await page.totals()).toEqual({ orders: 3, charges: 3 })
  })

  it('goes on behind the charge when it is killed after it', async () => {
    const shown = await page.press('Kill the server after the charge', '#journal .interrupted')
    expect(shown).toMatchObject(oneOfEach)
    expect(lastRetry(shown)).toMatch(/Retry \d+ 201 Created (replayed )?attempt 2/)
    expect(shown.journal).toEqual(behindTheCharge)
    expect((await page.rows('ledger'))[0]).toContain('asked once, charged once')
  })

  it('is retried by the client in the page, with the same bytes under the same key', () => {
    expect(page.sent.length).toBeGreaterThan(1)
    expect(page.sent[0]?.key).toMatch(/^"order-[0-9a-f]+"$/)
    for (const request of page.sent) expect(request).toEqual(page.sent[0])
  })

  proofOnly('finishes the order of a customer who never asks again', async () => {
    const shown = await page.press('Kill it, and walk away')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events.map((event) => event.replace(/^[\d.]+ /, ''))).toEqual([
      expect.stringMatching(/^Order Connection lost/),
      expect.stringMatching(/^Shop killed/),
      expect.stringMatching(/^Walks away/),
      expect.stringMatching(/^Shop is back/),
      expect.stringMatching(/^Shop finishes the order, in attempt 2/),
    ])
    expect(page.sent).toHaveLength(1)
    expect(shown.journal).toEqual(behindTheCharge)
    expect(await page.totals()).toEqual({ orders: 5, charges: 5 })
  })
})

describe('the example shop without Pawl', SLOW, () => {
  beforeAll(() => page.switchPawl('off'))

  it('takes an order, when nothing goes wrong', async () => {
    const shown = await page.press('Order and pay')
    expect(shown).toMatchObject({ verdict: 'good', orders: 1, charges: 1 })
  })

  it('charges a retry again', async () => {
    const shown = await page.press('Retry with the same key')
    expect(shown).toMatchObject({ verdict: 'bad', title: '2 orders, 2 charges', charges: 2 })
  })

  it('charges a double click twice', async () => {
    const shown = await page.press('Order with a double click')
    expect(shown).toMatchObject({ verdict: 'bad', title: '2 orders, 2 charges', charges: 2 })
    expect(shown.events.join()).not.toContain('replayed')
  })

  it('charges another amount under the same key as well', async () => {
    const shown = await page.press('Same key, another amount')
    expect(shown).toMatchObject({ verdict: 'bad', title: '3 orders, 3 charges' })
  })

  proofOnly('charges twice for one order when it is killed after the charge', async () => {
    const shown = await page.press('Kill the server after the charge')
    expect(shown).toMatchObject({ verdict: 'bad', title: '1 order, 2 charges' })
    expect(shown.journal).toEqual(['No journal Every try begins from the start.'])
  })

  proofOnly('charges a customer who walks away for nothing', async () => {
    const shown = await page.press('Kill it, and walk away')
    expect(shown).toMatchObject({ verdict: 'bad', title: '0 orders, 1 charge' })
    expect((await page.rows('ledger'))[0]).toContain('charged, no order')
    expect(await page.totals()).toEqual({ orders: 5 + 6, charges: 5 + 8 })
  })
})

describe('an order that fails for good', () => {
  const post = (key: string, more: object) =>
    fetch(shopUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': key },
      body: JSON.stringify({ cart: 'B-1', item: 'Enamel cup', amount: 1200, ...more }),
    })

  it('is not charged when the card is declined, however often it is asked for', async () => {
    const answers = [
      await post('b-1', { card: 'declined' }),
      await post('b-1', { card: 'declined' }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([402, 402])
    expect(await answers[1]?.json()).toEqual({ error: 'The card was declined.' })
    expect(answers[1]?.headers.get('idempotent-replayed')).toBe('true')
  })

  it('is undone when the last step fails: cancelled and refunded', async () => {
    const answer = await post('b-2', { email: 'nobody@example.com' })
    expect(answer.status).toBe(422)
    expect(await answer.json()).toEqual({ error: 'There is no mailbox nobody@example.com.' })
    await page.waitForText('charged and refunded')
    await waitFor('the order to show as cancelled', async () =>
      (await page.rows('orders'))[0]?.includes('cart B-1 cancelled'),
    )
  })
})

describe('the example shop at its end', () => {
  it('ends cleanly on Ctrl-C, tells the page, and leaves no process behind', async () => {
    const processes = await descendantsOf(shop.pid as number)
    for (const part of ['shop.ts', 'provider.ts', 'database.ts', 'postgres']) {
      expect(
        processes.some(({ command }) => command.includes(part)),
        part,
      ).toBe(true)
    }
    shop.kill('SIGINT')
    const [code] = await once(shop, 'exit')
    expect(code, printed).toBe(0)
    expect(await stillRunning(processes)).toEqual([])
    await page.waitForText('The example has ended')
  })

  it('has logged no error in the browser', () => {
    expect(page.errors).toEqual([])
  })
})
