/** Registers the Pawl instances that run in this process. */

import type { TransactionHost } from '../store/database/transaction-host.ts'

/** A Pawl that has started and not stopped. */
export interface StartedInstance {
  /** Begins transactions in the app's database. @throws PawlError `not-started` */
  readonly host: TransactionHost<unknown>
  /**
   * Ends the instance as a crash would, for simulations: it sends nothing more to the database and logs
   * nothing more.
   */
  abandon(): void
}

/** The started Pawl instances of this process. */
export const startedInstances = new Set<StartedInstance>()
