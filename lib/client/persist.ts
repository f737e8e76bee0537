/** The entry point of pawl/client/persist: stores that keep requests until their response is final. */

export { indexedDbStore } from './indexed-db-store.ts'
export { localStorageStore, type StorageLike } from './local-storage-store.ts'
export {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
  type ResumableFetch,
  type Resumed,
} from './pending-requests.ts'
