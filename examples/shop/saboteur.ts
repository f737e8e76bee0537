/**
 * Kills the shop at the worst moment, from the outside: the shop has no code for this, and does not
 * know.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Pool, PoolClient } from 'pg'
import { PACE } from './pace.ts'

/** When to kill: with the charge made and its answer on the way, or recorded and the order not. */
export type Moment = 'while-charging' | 'before-order'

interface Accomplices {
  pool: Pool
  /** The provider calls back when the cart is charged, and keeps the answer to itself. */
  holdBackCharge: (cart: string) => void
  /** Resolves when it is dead. */
  killShop: () => Promise<void>
  /** Ends the wait. */
  signal: AbortSignal
}

/** Long enough to be seen on the page. */
const PAUSE_MS = 900 * PACE
/** Whoever never writes is not waited for: others want to. */
const PATIENCE_MS = 60_000

/** Resolves once it lies in wait for the moment; then the order may be sent. */
export async function lieInWait(
  moment: Moment,
  cart: string,
  accomplices: Accomplices,
): Promise<void> {
  if (moment === 'while-charging') return accomplices.holdBackCharge(cart)
  const { pool } = accomplices
  const client = await pool.connect()
  try {
    await client.query('begin')
    // The table can be read, and whoever writes to it waits until we let go.
    await client.query('lock table example_shop.orders in share mode')
  } catch (error) {
    client.release(error as Error)
    throw error
  }
  killWhoeverWrites(client, accomplices).then(
    () => client.release(),
    (error) => client.release(error as Error),
  )
}

async function killWhoeverWrites(client: PoolClient, { killShop, signal }: Accomplices) {
  const deadline = performance.now() + PATIENCE_MS
  while (!signal.aborted && performance.now() < deadline) {
    if ((await whoWaits(client)).length > 0) {
      await sleep(PAUSE_MS)
      await killShop()
      // PostgreSQL has not noticed that its client is dead, and would write the order after all.
      for (const pid of await whoWaits(client)) {
        await client.query('select pg_terminate_backend($1)', [pid])
      }
      break
    }
    await sleep(20)
  }
  await client.query('rollback')
}

/** From pg_locks: in a transaction, pg_stat_activity would not show who has connected since. */
async function whoWaits(client: PoolClient): Promise<number[]> {
  const { rows } = await client.query<{ pid: number }>(
    `select pid from pg_locks
     where relation = 'example_shop.orders'::regclass and mode = 'RowExclusiveLock' and not granted`,
  )
  return rows.map(({ pid }) => pid)
}
