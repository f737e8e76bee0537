import { AsyncLocalStorage } from 'node:async_hooks'
import type { Context } from 'hono'

/** The context behind whose idempotency() the running code is. */
const behind = new AsyncLocalStorage<Context>()

/** Runs what comes behind idempotency(). */
export function runBehind<T>(c: Context, work: () => T): T {
  return behind.run(c, work)
}

/** Hono would merge the headers of a response that is there into the next. */
export function replaceResponse(c: Context, response: Response): void {
  c.res = undefined
  c.res = response
}

/**
 * Answers while the handler is still at work. A context has one response; from now on the handler, by its
 * async context, sees the one that it makes, and everybody else the one that is sent.
 */
export function answerBesideHandler(c: Context, response: Response): void {
  const isHandler = () => behind.getStore() === c
  const { header } = c
  const own = Object.getPrototypeOf(c) as Context
  let sent: Response | undefined = response
  let { finalized } = c
  Object.defineProperties(c, {
    res: {
      configurable: true,
      get: () => (isHandler() ? Reflect.get(own, 'res', c) : sent),
      set(value: Response | undefined) {
        if (isHandler()) Reflect.set(own, 'res', value, c)
        else sent = value
      },
    },
    finalized: {
      configurable: true,
      get: () => (isHandler() ? finalized : true),
      set(value: boolean) {
        if (isHandler()) finalized = value
      },
    },
    header: {
      configurable: true,
      value: (...args: Parameters<typeof header>) => {
        const [name, value, options] = args
        if (isHandler()) header(...args)
        else if (value === undefined) sent?.headers.delete(name)
        else if (options?.append) sent?.headers.append(name, value)
        else sent?.headers.set(name, value)
      },
    },
  })
}
