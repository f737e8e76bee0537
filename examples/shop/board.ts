import type { Try } from './customer.ts'
import type { Charge } from './provider.ts'
import type { ShopState } from './supervisor.ts'

export interface Order {
  id: string
  cart: string
  item: string
  amount: number
  charge: string
  /** Null without Pawl, where attempts have no number. */
  attempt: number | null
  pid: number
}

/** What has happened to one purchase, in the order in which it happened. */
export interface Story {
  scenario: string
  cart: string
  item: string
  amount: number
  key: string
  pawl: boolean
  events: StoryEvent[]
}

export type StoryEvent = { id: number; atMs: number } & (
  | ({ kind: 'try'; label: string } & Try)
  | { kind: 'killed' | 'restarted'; pid: number | null }
)

/** All that the page shows. */
export interface Snapshot {
  shop: ShopState
  database: string | null
  providerPid: number | null
  orders: Order[]
  ledger: Charge[]
  story: Story | null
  /** Whether a scenario is being played, and how many have been. */
  busy: boolean
  played: number
}

/** Holds what the page shows and tells the pages that are open when it has changed. */
export class Board {
  readonly #listeners = new Set<(snapshot: Snapshot) => void>()
  #announced = false
  #snapshot: Snapshot = {
    shop: { state: 'starting', pid: null },
    database: null,
    providerPid: null,
    orders: [],
    ledger: [],
    story: null,
    busy: false,
    played: 0,
  }

  get snapshot(): Snapshot {
    return this.#snapshot
  }

  update(changes: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...changes }
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
