/**
 * `npm start`: brings up PostgreSQL, the payment provider, the shop and the page, each in a
 * process of its own, and takes them down again in the opposite order.
 */
import { Pool } from 'pg'
import { Board } from './board.ts'
import { endChild, startChild, whenReady } from './child.ts'
import { startFront } from './front.ts'
import { readJournal } from './journal.ts'
import { lineTo } from './line.ts'
import { listOrders } from './orders.ts'
import { freePort } from './ports.ts'
import type { LedgerNews } from './provider.ts'
import { lieInWait } from './saboteur.ts'
import { Supervisor } from './supervisor.ts'
import { createTables, databaseName } from './tables.ts'

const host = process.env.HOST ?? 'localhost'
const port = Number(process.env.PORT ?? 3000)

/** How often the page sees what is new in the database. */
const LOOK_MS = 150

/** How to end what has been started, last one first. */
const endings: (() => unknown)[] = []
const ended = new AbortController()
let exiting: Promise<void> | undefined
let exitingSince = 0

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // npm and tsx pass on a Ctrl-C that the terminal has sent already: that is one and the same.
    if (exiting && performance.now() - exitingSince < 500) return
    // Pressed again: leave. The others end by themselves when they find that nobody is here.
    if (exiting) process.exit(1)
    console.log('\n  Ending: the shop finishes its work, then the provider and PostgreSQL stop.')
    exit(0)
  })
}

try {
  await start()
} catch (error) {
  if (!exiting) {
    console.error(`\n  The example could not start: ${(error as Error).message}\n`)
    exit(1)
  }
}

async function start() {
  const board = new Board()
  const front = await listen(board)
  endings.push(() => front.close())

  const databaseUrl = process.env.DATABASE_URL ?? (await startDatabase())
  const pool = new Pool({ connectionString: databaseUrl, max: 3 })
  pool.on('error', () => {}) // An idle connection that breaks is replaced by the next query.
  endings.push(() => pool.end())
  await createTables(pool)
  board.update({ database: await databaseName(pool) })

  const provider = startChild('./provider.ts', {})
  endings.push(() => endChild(provider, 'SIGTERM'))
  const { url: providerUrl } = await whenReady<{ url: string }>(provider)
  board.update({ providerPid: provider.pid ?? null })

  const shopPort = await freePort()
  const shopUrl = `http://127.0.0.1:${shopPort}`
  const supervisor = new Supervisor(
    { DATABASE_URL: databaseUrl, PROVIDER_URL: providerUrl, SHOP_PORT: String(shopPort) },
    (shop) => board.update({ shop }),
    (error) => {
      console.error(`\n  The shop does not start any more: ${error.message}\n`)
      exit(1)
    },
  )
  endings.push(() => supervisor.stop())

  provider.on('message', ({ ledger, held }: LedgerNews) => {
    board.update({ ledger })
    if (held) supervisor.kill()
  })

  /** Of the order that the page has sent last. */
  let key = ''
  front.open({
    line: lineTo(shopUrl, (heard) => {
      key = heard
    }),
    sabotage: (moment, cart) =>
      lieInWait(moment, cart, {
        pool,
        holdBackCharge: (cart) => provider.send({ holdBack: cart }),
        killShop: () => supervisor.kill(),
        signal: ended.signal,
      }),
    look,
  })
  async function look() {
    const [orders, journal] = await Promise.all([listOrders(pool), readJournal(pool, key)])
    board.update({ orders, journal })
  }

  await supervisor.start()
  const polling = setInterval(() => look().catch(() => {}), LOOK_MS)
  endings.push(() => {
    clearInterval(polling)
    ended.abort()
  })
  console.log(`
  Pawl's example shop is open.

    Page   http://localhost:${front.port}
    Shop   ${shopUrl}/orders

  Ctrl-C ends everything.
`)
}

async function listen(board: Board) {
  try {
    return await startFront({ host, port, board })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new Error(`port ${port} is in use. Choose another one: PORT=${port + 1} npm start`)
  }
}

async function startDatabase(): Promise<string> {
  console.log('\n  Starting PostgreSQL …')
  const database = startChild('./database.ts', {})
  endings.push(() => endChild(database, 'disconnect'))
  const { url } = await whenReady<{ url: string }>(database)
  return url
}

function exit(code: number) {
  exitingSince = performance.now()
  exiting ??= (async () => {
    for (const end of endings.reverse()) await end()
    process.exit(code)
  })()
}
