/** Wraps a transaction's handle so that it throws once the transaction has ended. */

import { PawlError } from '../../errors/index.ts'

/**
 * A proxy of a transaction's handle that throws `no-transaction` after `revoke` was called. Code may outlive its
 * transaction (a branch of a `Promise.all` that failed, a handler that timed out). Without the proxy, such code
 * would run statements outside of any transaction, or inside the next transaction on the same connection.
 *
 * @param handle a client, or the object or function by which a library represents a transaction
 */
export function revocableHandle<Handle>(handle: Handle): { handle: Handle; revoke(): void } {
  let revoked = false
  const check = () => {
    if (!revoked) return
    throw new PawlError(
      'no-transaction',
      'A transaction was used after it had ended; no statement was sent.',
      'Await everything that a transaction does before it ends.',
    )
  }
  const proxy = new Proxy(handle as object, {
    get(target, name) {
      check()
      const value = Reflect.get(target, name, target)
      // `constructor` is a function, but must stay the class itself.
      if (typeof value !== 'function' || name === 'constructor' || isReadOnly(target, name)) {
        return value
      }
      // Calls the method on the target: private fields are not reachable through a proxy.
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
    handle: proxy as Handle,
    revoke: () => {
      revoked = true
    },
  }
}

/** Whether the property can be neither changed nor redefined; a proxy must then return its actual value. */
function isReadOnly(target: object, name: string | symbol): boolean {
  const own = Reflect.getOwnPropertyDescriptor(target, name)
  return own !== undefined && !own.configurable && !own.writable
}
