import {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
} from './pending-requests.ts'

/** The part of IndexedDB that is used here; Node's types have none of it. */
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

const TABLE = 'pending'

/**
 * Keeps pending requests in IndexedDB, for browsers and their workers.
 * @param name the database's; put the user's id in it where several may use one browser, so that
 * nobody resumes what somebody else has begun
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
  /** Resolves when it is committed, to what `work` has given by then. */
  const inTransaction = async <T>(
    mode: 'readonly' | 'readwrite',
    work: (store: ObjectStore) => () => T,
  ): Promise<T> => {
    const db = await database()
    return new Promise((resolve, reject) => {
      // Strict: on the disk when it says so, or a power cut would lose what was sent already.
      const transaction = db.transaction(TABLE, mode, { durability: 'strict' })
      const result = work(transaction.objectStore(TABLE))
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
      request.result.createObjectStore(TABLE, { keyPath: 'key' })
    }
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const db = request.result
      db.onclose = close
      // So that another tab may delete the database.
      db.onversionchange = () => {
        db.close()
        close()
      }
      resolve(db)
    }
  })
}
