import { isDeepStrictEqual } from 'node:util'
import type { ServerState } from '../support/supervisor.ts'
import type { Charge } from './provider.ts'

export interface Order {
  id: string
  cart: string
  item: string
  amount: number
  charge: string
  /** Null without Pawl, where attempts have no number. */
  attempt: number | null
  pid: number
  cancelled: boolean
}

/** What Pawl knows of one order. */
export interface Journal {
  key: string
  status: string
  /** The latest. */
  attempt: number
  steps: {
    name: string
    status: string
    /** Which attempt has recorded it. */
    attempt: number
  }[]
}

/** All that the page shows. */
export interface Snapshot {
  /** Counts the changes. */
  version: number
  shop: ServerState
  database: string | null
  providerPid: number | null
  orders: Order[]
  ledger: Charge[]
  /** Of the order that was last sent from the page; null if Pawl has nothing of it. */
  journal: Journal | null
}

/** Holds what the page shows and tells the pages that are open when it has changed. */
export class Board {
  readonly #listeners = new Set<(snapshot: Snapshot) => void>()
  #announced = false
  #snapshot: Snapshot = {
    version: 0,
    shop: { state: 'starting', pid: null },
    database: null,
    providerPid: null,
    orders: [],
    ledger: [],
    journal: null,
  }

  get snapshot(): Snapshot {
    return this.#snapshot
  }

  update(changes: Partial<Omit<Snapshot, 'version'>>): void {
    const changed = { ...this.#snapshot, ...changes }
    if (isDeepStrictEqual(changed, this.#snapshot)) return
    this.#snapshot = { ...changed, version: changed.version + 1 }
    if (this.#announced) return
    this.#announced = true
    // Several changes in one turn are one message.
    setImmediate(() => {
      this.#announced = false
      for (const listener of this.#listeners) listener(this.#snapshot)
    })
  }

  /** Calls the listener at once and after every change, until the returned function is called. */
  watch(listener: (snapshot: Snapshot) => void): () => void {
    this.#listeners.add(listener)
    listener(this.#snapshot)
    return () => this.#listeners.delete(listener)
  }
}
