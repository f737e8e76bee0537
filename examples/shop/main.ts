/**
 * `npm start`: brings up PostgreSQL, the payment provider, the shop and the page, each in a
 * process of its own, and takes them down again in the opposite order.
 */
import { Pool } from 'pg'
import { endChild, startChild, whenReady } from '../support/child.ts'
import { listenError, portFromEnv } from '../support/listen.ts'
import { freePort } from '../support/ports.ts'
import { Program } from '../support/program.ts'
import { databaseUrl as startDatabase } from '../support/start-database.ts'
import { Supervisor } from '../support/supervisor.ts'
import { Board } from './board.ts'
import { startFront } from './front.ts'
import { readJournal } from './journal.ts'
import { lineTo } from './line.ts'
import { listOrders } from './orders.ts'
import { PACE } from './pace.ts'
import type { LedgerNews } from './provider.ts'
import { lieInWait } from './saboteur.ts'
import { createTables, databaseName } from './tables.ts'

const host = process.env.HOST ?? 'localhost'

/** How often the page sees what is new in the database. */
const LOOK_MS = 150
/** How long the shop stays dead: long enough to be seen on the page. */
const DEAD_MS = 600 * PACE

const ended = new AbortController()
const program = new Program(
  'Ending: the shop finishes its work, then the provider and PostgreSQL stop.',
)
await program.run(start)

async function start() {
  const board = new Board()
  const front = await listen(board)
  program.atEnd(() => front.close())

  const databaseUrl = await startDatabase(program)
  const pool = new Pool({ connectionString: databaseUrl, max: 3 })
  pool.on('error', () => {}) // An idle connection that breaks is replaced by the next query.
  program.atEnd(() => pool.end())
  await createTables(pool)
  board.update({ database: await databaseName(pool) })

  const provider = startChild(new URL('./provider.ts', import.meta.url), {})
  program.atEnd(() => endChild(provider))
  const { url: providerUrl } = await whenReady<{ url: string }>(provider)
  board.update({ providerPid: provider.pid ?? null })

  const shopPort = await freePort()
  const shopUrl = `http://127.0.0.1:${shopPort}`
  const supervisor = new Supervisor({
    file: new URL('./shop.ts', import.meta.url),
    env: { DATABASE_URL: databaseUrl, PROVIDER_URL: providerUrl, SHOP_PORT: String(shopPort) },
    pauseMs: DEAD_MS,
    changed: (shop) => board.update({ shop }),
    gaveUp: (error) => program.fail(`The shop does not start any more: ${error.message}`),
  })
  program.atEnd(() => supervisor.stop())

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
  program.atEnd(() => {
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
  const port = portFromEnv(3000)
  try {
    return await startFront({ host, port, board })
  } catch (error) {
    throw listenError(error, port)
  }
}
