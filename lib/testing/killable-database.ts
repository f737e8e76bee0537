/** Wraps the app's database, so that it stops working when the app's simulated process is killed. */

import type { Database } from '../store/database/database.ts'
import { OPEN_DATABASE } from '../store/database/open-database.ts'
import type { PgPool } from '../store/database/pg-pool.ts'
import type { PGliteLike } from '../store/database/pglite.ts'
import { type KillSwitch, neverSettles } from './kill-switch.ts'

/** The databases that an app under test can use. */
export type TestableDatabase = PgPool | PGliteLike

type Method = (...args: unknown[]) => unknown

/**
 * Wraps the app's database for one process. The wrapper behaves like the database itself until the process
 * is killed. After that nothing that the process sends arrives, and its connections are lost, with their
 * transactions.
 *
 * @param open opens the `Database` that Pawl is to use
 */
export function killableDatabase<D extends TestableDatabase>(
  database: D,
  killSwitch: KillSwitch,
  open: (timeoutMs: number) => Promise<Database>,
): D {
  // The app must not close it: the database belongs to the test, whose next process uses it.
  const keepOpen = async () => {}
  const overrides = { [OPEN_DATABASE]: open, end: keepOpen, close: keepOpen }
  return 'exec' in database
    ? killable(database, killSwitch, {
        ...overrides,
        transaction: killableTransaction(database, killSwitch),
      })
    : killable(database, killSwitch, {
        ...overrides,
        connect: killableConnect(database, killSwitch),
      })
}

/**
 * Wraps an object. Once the process is killed, its methods do nothing and its promises do not settle.
 * @param overrides properties that replace those of the object
 */
export function killable<T extends object>(
  target: T,
  killSwitch: KillSwitch,
  overrides: Record<PropertyKey, unknown> = {},
): T {
  return new Proxy(target, {
    get(target, name) {
      if (Object.hasOwn(overrides, name)) return overrides[name]
      const value: unknown = Reflect.get(target, name)
      // Classes are passed through: a pool has those of its clients and promises as properties.
      if (typeof value !== 'function' || /^[A-Z]/.test(String(name))) return value
      return (...args: unknown[]) => {
        if (killSwitch.isKilled) return neverSettles()
        const given = name === 'query' ? withKillableCallback(args, killSwitch) : args
        const result: unknown = (value as Method).apply(target, given)
        return isThenable(result) ? killSwitch.untilKilled(result) : result
      }
    },
  })
}

function withKillableCallback(args: unknown[], killSwitch: KillSwitch): unknown[] {
  const last = args.at(-1)
  if (typeof last !== 'function') return args
  const callback = (...results: unknown[]) =>
    killSwitch.isKilled ? undefined : (last as Method)(...results)
  return [...args.slice(0, -1), callback]
}

interface Client {
  release(destroy?: Error | boolean): void
}

/** Replaces pool.connect(), which works with and without a callback. */
function killableConnect(pool: PgPool, killSwitch: KillSwitch) {
  const connect = async () => {
    if (killSwitch.isKilled) return neverSettles()
    const client = (await pool.connect()) as Client
    if (killSwitch.isKilled) {
      client.release()
      return neverSettles()
    }
    const removeListener = killSwitch.onKill(() => client.release(true))
    const release: Client['release'] = (destroy) => {
      removeListener()
      client.release(destroy)
    }
    return killable(client, killSwitch, { release })
  }
  return (callback?: (error: unknown, client?: Client, done?: Client['release']) => void) => {
    const client = killSwitch.untilKilled(connect())
    if (!callback) return client
    client.then(
      (client) => callback(undefined, client, client.release),
      (error) => callback(error),
    )
    return undefined
  }
}

/** Replaces PGlite's transaction(). A kill rolls it back, since PGlite has one connection only. */
function killableTransaction(
  database: PGliteLike,
  killSwitch: KillSwitch,
): PGliteLike['transaction'] {
  return (work) => {
    if (killSwitch.isKilled) return neverSettles()
    let removeListener = () => {}
    const died = new Promise<never>((_, reject) => {
      removeListener = killSwitch.onKill(() => reject(new Error('The process is dead.')))
    })
    died.catch(() => {})
    const committed = database.transaction((tx) =>
      Promise.race([work(killable(tx, killSwitch) as typeof tx), died]),
    )
    return killSwitch.untilKilled(committed).finally(removeListener)
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null)?.then === 'function'
}
