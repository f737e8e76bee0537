/** Sets the response of a Hono context, also while a handler that no longer has a client goes on. */

import { AsyncLocalStorage } from 'node:async_hooks'
import type { Context } from 'hono'

/** The context whose handler is running, if the current code belongs to a protected handler. */
const handlerContext = new AsyncLocalStorage<Context>()

/** Runs the handler and the middleware after `idempotency()`. */
export function runAsHandler<T>(c: Context, work: () => T): T {
  return handlerContext.run(c, work)
}

/** Sets the response. Without `undefined` first, Hono would merge the headers of the previous response into it. */
export function replaceResponse(c: Context, response: Response): void {
  c.res = undefined
  c.res = response
}

/**
 * Sends a response while the handler goes on. A Hono context has only one response. From now on the handler
 * (recognized by its async context) sees its own, and all other code sees the one that is sent.
 */
export function respondBesideHandler(c: Context, response: Response): void {
  const isHandler = () => handlerContext.getStore() === c
  const { header } = c
  const prototype = Object.getPrototypeOf(c) as Context
  let sent: Response | undefined = response
  let { finalized } = c
  Object.defineProperties(c, {
    res: {
      configurable: true,
      get: () => (isHandler() ? Reflect.get(prototype, 'res', c) : sent),
      set(value: Response | undefined) {
        if (isHandler()) Reflect.set(prototype, 'res', value, c)
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
