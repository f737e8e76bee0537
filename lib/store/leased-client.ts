import { PawlError } from '../errors.ts'

interface Client {
  query(...args: never[]): unknown
}

/**
 * A client for as long as a transaction lasts. Code that outlives its transaction (a branch of a
 * `Promise.all` that failed, a handler whose time was up) would else go on outside of any transaction, or
 * inside of that of whoever has the client next.
 */
export function lease<C extends Client>(client: C): { client: C; end(): void } {
  let over = false
  const query = (...args: never[]) => {
    if (!over) return client.query(...args)
    throw new PawlError(
      'no-transaction',
      'A statement was sent through a transaction that has ended; it was not carried out.',
      'Wait for all that a transaction does before it ends.',
    )
  }
  const release = () => {
    throw new PawlError(
      'no-transaction',
      'The client of a transaction was released.',
      'It goes back to the pool by itself when the transaction ends.',
    )
  }
  const leased = new Proxy(client, {
    get(target, name) {
      if (name === 'query') return query
      if (name === 'release') return release
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  return {
    client: leased,
    end: () => {
      over = true
    },
  }
}
