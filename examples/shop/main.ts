/**
 * `npm start`: brings up PostgreSQL, the payment provider, the shop and the page, each in a
 * process of its own, and takes them down again in the opposite order.
 */
import { Pool } from 'pg'
import { Board } from './board.ts'
import { endChild, startChild, whenReady } from './child.ts'
import { startFront } from './front.ts'
import { createOrders, databaseName, listOrders } from './orders.ts'
import { freePort } from './ports.ts'
import type { LedgerNews } from './provider.ts'
import { Scenarios } from './scenarios.ts'
import { Supervisor } from './supervisor.ts'

const host = process.env.HOST ?? 'localhost'
const port = Number(process.env.PORT ?? 3000)

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
  let scenarios: Scenarios | undefined

  const front = await listen(board, (scenario, purchase) => !!scenarios?.play(scenario, purchase))
  endings.push(() => front.close())

  const databaseUrl = process.env.DATABASE_URL ?? (await startDatabase())
  const pool = new Pool({ connectionString: databaseUrl, max: 2 })
  pool.on('error', () => {}) // An idle connection that breaks is replaced by the next query.
  endings.push(() => pool.end())
  await createOrders(pool)
  board.update({ database: await databaseName(pool) })

  const provider = startChild('./provider.ts', {})
  endings.push(() => endChild(provider, 'SIGTERM'))
  const { url: providerUrl } = await whenReady<{ url: string }>(provider)
  board.update({ providerPid: provider.pid ?? null })

  const shopPort = await freePort()
  const shopUrl = `http://127.0.0.1:${shopPort}`
  const supervisor = new Supervisor(
    { DATABASE_URL: databaseUrl, PROVIDER_URL: providerUrl, SHOP_PORT: String(shopPort) },
    (shop) => {
      board.update({ shop })
      if (shop.state === 'killed') scenarios?.note('killed', shop.pid)
      if (shop.state === 'up') scenarios?.note('restarted', shop.pid)
    },
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
  const refreshOrders = async () => board.update({ orders: await listOrders(pool) })
  const polling = setInterval(() => refreshOrders().catch(() => {}), 300)
  endings.push(() => {
    clearInterval(polling)
    ended.abort()
  })

  await supervisor.start()
  scenarios = new Scenarios({
    board,
    shopUrl,
    signal: ended.signal,
    killOnCharge: (cart) => provider.send({ holdBack: cart }),
    refreshOrders,
  })
  console.log(`
  Pawl's example shop is open.

    Page   http://localhost:${front.port}
    Shop   ${shopUrl}/orders

  Ctrl-C ends everything.
`)
}

async function listen(board: Board, play: Parameters<typeof startFront>[0]['play']) {
  try {
    return await startFront({ host, port, board, play })
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
