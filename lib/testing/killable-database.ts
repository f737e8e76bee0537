import type { Database } from '../store/database/database.ts'
import type { PgPool } from '../store/database/node-postgres.ts'
import { OPEN } from '../store/database/open-database.ts'
import type { PGliteLike } from '../store/database/pglite.ts'
import { type Life, never } from './kill-switch.ts'

/** What an app under test can be given as its database. */
export type TestableDatabase = PgPool | PGliteLike

type Method = (...args: unknown[]) => unknown

/**
 * The app's database for one process: the same object as far as the app can tell. When the process dies,
 * nothing sent through it arrives any more, and its connections are lost, with the transactions on them.
 *
 * @param open opens the Database that Pawl is to use
 */
export function mortal<D extends TestableDatabase>(
  database: D,
  life: Life,
  open: (timeoutMs: number) => Promise<Database>,
): D {
  // It belongs to the test, which goes on with it in the next process.
  const keepOpen = async () => {}
  const special = { [OPEN]: open, end: keepOpen, close: keepOpen }
  return 'exec' in database
    ? guarded(database, life, { ...special, transaction: transactionOf(database, life) })
    : guarded(database, life, { ...special, connect: connectTo(database, life) })
}

/** An object whose methods do nothing, and whose promises do not settle, once the process is dead. */
export function guarded<T extends object>(
  target: T,
  life: Life,
  special: Record<PropertyKey, unknown> = {},
): T {
  return new Proxy(target, {
    get(target, name) {
      if (Object.hasOwn(special, name)) return special[name]
      const value: unknown = Reflect.get(target, name)
      // A pool holds the classes it makes its clients and promises of.
      if (typeof value !== 'function' || /^[A-Z]/.test(String(name))) return value
      return (...args: unknown[]) => {
        if (life.isOver) return never()
        const given = name === 'query' ? withMortalCallback(args, life) : args
        const result: unknown = (value as Method).apply(target, given)
        return isThenable(result) ? life.deliver(result) : result
      }
    },
  })
}

function withMortalCallback(args: unknown[], life: Life): unknown[] {
  const last = args.at(-1)
  if (typeof last !== 'function') return args
  const callback = (...results: unknown[]) =>
    life.isOver ? undefined : (last as Method)(...results)
  return [...args.slice(0, -1), callback]
}

interface Client {
  release(destroy?: Error | boolean): void
}

/** As pool.connect(), with or without a callback. */
function connectTo(pool: PgPool, life: Life) {
  const connect = async () => {
    if (life.isOver) return never()
    const client = (await pool.connect()) as Client
    if (life.isOver) {
      client.release()
      return never()
    }
    const forget = life.atDeath(() => client.release(true))
    const release: Client['release'] = (destroy) => {
      forget()
      client.release(destroy)
    }
    return guarded(client, life, { release })
  }
  return (callback?: (error: unknown, client?: Client, done?: Client['release']) => void) => {
    const client = life.deliver(connect())
    if (!callback) return client
    client.then(
      (client) => callback(undefined, client, client.release),
      (error) => callback(error),
    )
    return undefined
  }
}

/** As PGlite's transaction(): rolled back at death, since PGlite has no other connection. */
function transactionOf(database: PGliteLike, life: Life): PGliteLike['transaction'] {
  return (work) => {
    if (life.isOver) return never()
    let forget = () => {}
    const died = new Promise<never>((_, reject) => {
      forget = life.atDeath(() => reject(new Error('The process is dead.')))
    })
    died.catch(() => {})
    const committed = database.transaction((tx) =>
      Promise.race([work(guarded(tx, life) as typeof tx), died]),
    )
    return life.deliver(committed).finally(forget)
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null)?.then === 'function'
}
