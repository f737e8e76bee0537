export { indexedDbStore } from './indexed-db.ts'
export { localStorageStore, type StorageLike } from './local-storage.ts'
export {
  customStore,
  type PendingRequest,
  type PendingStore,
  type Persistence,
  type PersistOptions,
  type ResumableFetch,
  type Resumed,
} from './pending.ts'
