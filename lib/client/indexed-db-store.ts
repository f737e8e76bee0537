/** A store of pending requests in IndexedDB, for browsers and their workers. */

import {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
} from './pending-requests.ts'

/** The part of IndexedDB that the store uses; Node's types do not include it. */
interface DbRequest<T> {
  result: T
  error: unknown
  onsuccess: (() => void) | null
  onerror: (() => void) | null
}
interface OpenRequest extends DbRequest<Db> {
  onupgradeneeded: (() => void) | null
  onblocked: (() => void) | null
}
interface Db {
  createObjectStore(name: string, options: { keyPath: string }): unknown
  transaction(
    name: string,
    mode: 'readonly' | 'readwrite',
    options?: { durability: 'strict' },
  ): DbTransaction
  close(): void
  onversionchange: (() => void) | null
  onclose: (() => void) | null
}
interface DbTransaction {
  objectStore(name: string): ObjectStore
  error: unknown
  oncomplete: (() => void) | null
  onabort: (() => void) | null
}
interface ObjectStore {
  get(key: string): DbRequest<unknown>
  put(value: unknown): DbRequest<unknown>
  delete(key: string): DbRequest<unknown>
  getAll(): DbRequest<PendingRequest[]>
}

const OBJECT_STORE = 'pending'

/**
 * Keeps pending requests in IndexedDB, for browsers and their workers.
 * @param name the name of the database. Put the user's id in it if several users may share a browser, so
 * that one user does not resume another's requests
 */
export function indexedDbStore(name = 'pawl', options?: PersistOptions): Persistence {
  let opened: Promise<Db> | undefined
  const database = () => {
    const close = () => {
      opened = undefined
    }
    opened ??= open(name, close).catch((error) => {
      close()
      throw error
    })
    return opened
  }
  /**
   * Runs `work` in a transaction. Once that is committed, resolves to the result of the function that
   * `work` returned.
   */
  const inTransaction = async <T>(
    mode: 'readonly' | 'readwrite',
    work: (store: ObjectStore) => () => T,
  ): Promise<T> => {
    const db = await database()
    return new Promise((resolve, reject) => {
      // Strict durability: committed means on disk. Otherwise a power cut could lose a request that was
      // already sent.
      const transaction = db.transaction(OBJECT_STORE, mode, { durability: 'strict' })
      const result = work(transaction.objectStore(OBJECT_STORE))
      transaction.oncomplete = () => resolve(result())
      transaction.onabort = () => reject(transaction.error)
    })
  }
  const store: PendingStore = {
    add: (request) =>
      inTransaction('readwrite', (store) => {
        const found = store.get(request.key)
        found.onsuccess = () => {
          if (found.result === undefined) store.put(request)
        }
        return () => found.result === undefined
      }),
    delete: (key) =>
      inTransaction('readwrite', (store) => {
        store.delete(key)
        return () => undefined
      }),
    list: () =>
      inTransaction('readonly', (store) => {
        const all = store.getAll()
        return () => all.result
      }),
  }
  return customStore(store, options)
}

function open(name: string, close: () => void): Promise<Db> {
  const { indexedDB } = globalThis as unknown as {
    indexedDB: { open(name: string, version: number): OpenRequest }
  }
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1)
    request.onupgradeneeded = () => {
      request.result.createObjectStore(OBJECT_STORE, { keyPath: 'key' })
    }
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const db = request.result
      db.onclose = close
      // Lets another tab delete the database.
      db.onversionchange = () => {
        db.close()
        close()
      }
      resolve(db)
    }
  })
}
