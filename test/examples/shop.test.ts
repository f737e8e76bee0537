import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../helpers/wait-for.ts'
import { launchChromium } from './chromium.ts'
import { descendantsOf, stillRunning } from './processes.ts'
import { ShopPage } from './shop-page.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const tsx = fileURLToPath(import.meta.resolve('tsx/cli'))

let shop: ChildProcess
let browser: Browser
let page: ShopPage
let printed = ''

beforeAll(async () => {
  // The example imports Pawl as everybody does, from the package, that is, from what is built.
  await promisify(execFile)('npx', ['tsc', '-p', 'tsconfig.build.json'], { cwd: root })
  const { DATABASE_URL: _, ...env } = process.env
  shop = spawn(process.execPath, [tsx, 'examples/shop/main.ts'], {
    cwd: root,
    env: { ...env, PORT: '0' },
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
    30_000,
  )
  await page.open(url)
})

afterAll(async () => {
  await browser?.close()
  // Its processes end with it, however it ends.
  shop?.kill('SIGKILL')
})

describe('the example shop with Pawl', () => {
  const oneOfEach = { verdict: 'good', title: '1 order, 1 charge', orders: 1, charges: 1 }

  it('takes an order and charges it once', async () => {
    const shown = await page.press('Order and pay')
    expect(shown).toMatchObject(oneOfEach)
    expect(shown.events).toEqual([expect.stringMatching(/Order 201 Created attempt 1 \d+ ms/)])
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

  it('charges once when it is killed while it charges', async () => {
    const shown = await page.press('Kill the server while it charges')
    expect(shown).toMatchObject(oneOfEach)
    const story = shown.events.join(', ')
    expect(story).toMatch(/Order Connection lost.*Shop killed.*Shop is back/)
    expect(shown.events.at(-1)).toMatch(/Retry \d+ 201 Created attempt 2/)
    expect(await page.totals()).toEqual({ orders: 3, charges: 3 })
  })
})

describe('the example shop without Pawl', () => {
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

  it('charges twice for one order when it is killed while it charges', async () => {
    const shown = await page.press('Kill the server while it charges')
    expect(shown).toMatchObject({ verdict: 'bad', title: '1 order, 2 charges' })
    expect(await page.totals()).toEqual({ orders: 3 + 6, charges: 3 + 7 })
  })
})

describe('the example shop at its end', () => {
  it('ends cleanly on Ctrl-C, tells the page, and leaves no process behind', async () => {
    const processes = await descendantsOf(shop.pid as number)
    for (const part of ['main.ts', 'shop.ts', 'provider.ts', 'database.ts', 'postgres']) {
      expect(
        processes.some(({ command }) => command.includes(part)),
        part,
      ).toBe(true)
    }
    shop.kill('SIGINT')
    const [code] = await once(shop, 'exit')
    expect(code, printed).toBe(0)
    await waitFor('all processes to end', async () => (await stillRunning(processes)).length === 0)
    await page.waitForText('The example has ended')
  })

  it('has logged no error in the browser', () => {
    expect(page.errors).toEqual([])
  })
})
