/** What the page's buttons do: each plays a customer who orders something, and something happens. */
import { randomInt, randomUUID } from 'node:crypto'
import type { Board, Story, StoryEvent } from './board.ts'
import { order } from './customer.ts'

export type Scenario = 'order' | 'double-click' | 'retry' | 'other-amount' | 'kill'

export interface Purchase {
  pawl: boolean
  item: string
  amount: number
}

/** How much the other amount is more, in cents. */
const OTHER = 1_000

interface Stage {
  board: Board
  shopUrl: string
  signal: AbortSignal
  /** The shop is killed as soon as this cart's charge is in the provider's ledger. */
  killOnCharge: (cart: string) => void
  refreshOrders: () => Promise<void>
}

export class Scenarios {
  readonly #stage: Stage
  #began = 0
  #lastEvent = 0

  constructor(stage: Stage) {
    this.#stage = stage
  }

  /** False when another one is being played. */
  play(scenario: Scenario, purchase: Purchase): boolean {
    const { board, refreshOrders } = this.#stage
    if (board.snapshot.busy) return false
    board.update({ busy: true })
    this.#act(scenario, purchase)
      .then(refreshOrders)
      .catch(console.error)
      .finally(() => board.update({ busy: false, played: board.snapshot.played + 1 }))
    return true
  }

  /** Puts what happens to the shop's process into the story that is being told. */
  note(kind: 'killed' | 'restarted', pid: number | null): void {
    if (this.#stage.board.snapshot.busy) this.#put({ kind, pid, ...this.#stamp() })
  }

  async #act(scenario: Scenario, purchase: Purchase): Promise<void> {
    switch (scenario) {
      case 'order':
        this.#begin(scenario, purchase)
        return this.#send('Order')
      case 'double-click':
        this.#begin(scenario, purchase)
        await Promise.all([this.#send('Click 1'), this.#send('Click 2')])
        return
      case 'kill': {
        const { cart } = this.#begin(scenario, purchase)
        this.#stage.killOnCharge(cart)
        return this.#send('Order')
      }
      case 'retry':
        await this.#continue(scenario, purchase)
        return this.#send('Retry')
      case 'other-amount':
        await this.#continue(scenario, purchase)
        return this.#send(`Now €${(this.#story.amount + OTHER) / 100}`, OTHER)
    }
  }

  /** The last purchase, if it was made the same way; otherwise a new one. */
  async #continue(scenario: Scenario, purchase: Purchase): Promise<void> {
    const { board } = this.#stage
    const last = board.snapshot.story
    if (last && last.pawl === purchase.pawl) {
      board.update({ story: { ...last, scenario } })
    } else {
      this.#begin(scenario, purchase)
      await this.#send('Order')
    }
  }

  #begin(scenario: Scenario, purchase: Purchase): Story {
    this.#began = performance.now()
    const cart = `A-${randomInt(1_000, 10_000)}`
    const story = { ...purchase, scenario, cart, key: randomUUID(), events: [] }
    this.#stage.board.update({ story })
    return story
  }

  async #send(label: string, extra = 0): Promise<void> {
    const { shopUrl, signal } = this.#stage
    const story = this.#story
    const { cart, item, key } = story
    const body = JSON.stringify({ cart, item, amount: story.amount + extra })
    // With or without Pawl, the customer does the same: sends a key, and retries under it.
    const url = `${shopUrl}${story.pawl ? '' : '/naive'}/orders`
    let stamp = this.#stamp()
    await order(
      { url, key, body },
      (nth, result) => {
        if (result.status === null && result.error === null) stamp = this.#stamp()
        const name =
          nth === 1 ? label : label === 'Order' ? `Retry ${nth - 1}` : `${label}, retry ${nth - 1}`
        this.#put({ kind: 'try', label: name, ...stamp, ...result })
      },
      signal,
    )
  }

  get #story(): Story {
    return this.#stage.board.snapshot.story as Story
  }

  #stamp() {
    return { id: ++this.#lastEvent, atMs: Math.round(performance.now() - this.#began) }
  }

  /** Adds the event, or puts it in the place of what was known of it so far. */
  #put(event: StoryEvent): void {
    const { board } = this.#stage
    const { story } = board.snapshot
    if (!story) return
    const known = story.events.some(({ id }) => id === event.id)
    const events = known
      ? story.events.map((other) => (other.id === event.id ? event : other))
      : [...story.events, event]
    board.update({ story: { ...story, events } })
  }
}
