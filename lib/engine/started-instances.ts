import type { TransactionHost } from '../store/database/transaction-host.ts'

/** A Pawl that has started and not stopped. */
export interface StartedInstance {
  /** Begins transactions in the app's database. @throws PawlError `not-started` */
  readonly host: TransactionHost<unknown>
  /** Ends it as a crash would, for simulations: no farewell to the database, and no further log line. */
  abandon(): void
}

/** The started Pawls of this process. */
export const startedInstances = new Set<StartedInstance>()
