import {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
} from './pending-requests.ts'

/** The part of Storage that is used here; Node's types have none of it. */
export interface StorageLike {
  readonly length: number
  key(index: number): string | null
  getItem(key: string): string | null
  setItem(key: string, value: string): void
  removeItem(key: string): void
}

/**
 * Keeps pending requests in localStorage, or in anything like it. Simpler than IndexedDB, but it
 * holds some 5 MB, stores bodies as text, and is not there in workers.
 * @param name the prefix of the items; put the user's id in it where several may use one browser
 * @param options.storage default: the page's localStorage
 */
export function localStorageStore(
  name = 'pawl',
  { storage, ...options }: PersistOptions & { storage?: StorageLike } = {},
): Persistence {
  const prefix = `${name}:`
  // Looked up when used: where storage is forbidden, even naming it throws.
  const items = () =>
    storage ?? (globalThis as unknown as { localStorage: StorageLike }).localStorage
  const store: PendingStore = {
    async add(request) {
      const id = prefix + request.key
      if (items().getItem(id) !== null) return false
      const { body, ...rest } = request
      items().setItem(id, JSON.stringify({ ...rest, ...(body && { body: toBase64(body) }) }))
      return true
    },
    async delete(key) {
      items().removeItem(prefix + key)
    },
    async list() {
      const store = items()
      const ids = Array.from({ length: store.length }, (_, at) => store.key(at) ?? '')
      return ids
        .filter((id) => id.startsWith(prefix))
        .map((id) => parse(store.getItem(id) as string))
    },
  }
  return customStore(store, options)
}

function parse(item: string): PendingRequest {
  const { body, ...rest } = JSON.parse(item)
  return { ...rest, body: body === undefined ? undefined : fromBase64(body) }
}

function toBase64(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
}
