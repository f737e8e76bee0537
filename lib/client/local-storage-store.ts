/** A store of pending requests in the browser's localStorage, or in an object like it. */

import {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
} from './pending-requests.ts'

/** The part of the Web Storage API that the store uses; Node's types do not include it. */
export interface StorageLike {
  readonly length: number
  key(index: number): string | null
  getItem(key: string): string | null
  setItem(key: string, value: string): void
  removeItem(key: string): void
}

/**
 * Keeps pending requests in localStorage, or in an object like it. Simpler than IndexedDB, but it
 * holds some 5 MB, stores bodies as text, and is not available in workers.
 * @param name the prefix of the items. Put the user's id in it if several users may share a browser
 * @param options.storage default: the page's localStorage
 */
export function localStorageStore(
  name = 'pawl',
  { storage, ...options }: PersistOptions & { storage?: StorageLike } = {},
): Persistence {
  const prefix = `${name}:`
  // Read at each use: where storage is forbidden, even reading the property throws.
  const getStorage = () =>
    storage ?? (globalThis as unknown as { localStorage: StorageLike }).localStorage
  const store: PendingStore = {
    async add(request) {
      const id = prefix + request.key
      if (getStorage().getItem(id) !== null) return false
      const { body, ...rest } = request
      getStorage().setItem(id, JSON.stringify({ ...rest, ...(body && { body: toBase64(body) }) }))
      return true
    },
    async delete(key) {
      getStorage().removeItem(prefix + key)
    },
    async list() {
      const items = getStorage()
      const ids = Array.from({ length: items.length }, (_, index) => items.key(index) ?? '')
      return ids
        .filter((id) => id.startsWith(prefix))
        .map((id) => parseItem(items.getItem(id) as string))
    },
  }
  return customStore(store, options)
}

function parseItem(item: string): PendingRequest {
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
