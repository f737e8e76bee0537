import { PawlError } from '../../errors/index.ts'

/**
 * A transaction's handle, for as long as the transaction lasts. Code that outlives its transaction (a
 * branch of a `Promise.all` that failed, a handler whose time was up) would else go on outside of any
 * transaction, or inside of that of whoever has the connection next.
 *
 * @param handle a client, or whatever object or function a library makes of a transaction
 */
export function lease<Handle>(handle: Handle): { handle: Handle; end(): void } {
  let over = false
  const check = () => {
    if (!over) return
    throw new PawlError(
      'no-transaction',
      'A transaction was used after it had ended; nothing was carried out.',
      'Wait for all that a transaction does before it ends.',
    )
  }
  const leased = new Proxy(handle as object, {
    get(target, name) {
      check()
      const value = Reflect.get(target, name, target)
      // A class is no method.
      if (typeof value !== 'function' || name === 'constructor' || isFixed(target, name)) {
        return value
      }
      // Methods must find the private fields of their own object.
      return (...args: unknown[]) => {
        check()
        return Reflect.apply(value, target, args)
      }
    },
    apply(target, self, args) {
      check()
      return Reflect.apply(target as () => unknown, self, args)
    },
  })
  return {
    handle: leased as Handle,
    end: () => {
      over = true
    },
  }
}

/** Of such a property a proxy may give nothing but its value. */
function isFixed(target: object, name: string | symbol): boolean {
  const own = Reflect.getOwnPropertyDescriptor(target, name)
  return own !== undefined && !own.configurable && !own.writable
}
