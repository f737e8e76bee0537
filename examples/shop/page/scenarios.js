/** What the buttons do: each plays a customer who orders something, and something happens. */
import { order, PATIENT } from './customer.js'

/** How much the other amount is more, in cents. */
const OTHER = 1_000

export class Scenarios {
  /** What has happened to one purchase, in the order in which it happened. */
  story = null
  busy = false
  played = 0
  #shop
  #changed
  #began = 0
  #lastEvent = 0

  /**
   * @param shop asks for what happens outside of the page: `killAt`, `look`, and `until`
   * @param changed is called when there is something new
   */
  constructor(shop, changed) {
    this.#shop = shop
    this.#changed = changed
  }

  /** @param purchase what to order, and whether with Pawl: `{ item, amount, pawl }` */
  async play(scenario, purchase) {
    this.busy = true
    try {
      await this.#act(scenario, purchase)
      await this.#shop.look()
    } finally {
      this.busy = false
      this.played += 1
      this.#changed()
    }
  }

  /** Puts what happens to the shop's process into the story that is being told. */
  note(event) {
    if (this.busy) this.#add(event)
  }

  async #act(scenario, purchase) {
    switch (scenario) {
      case 'order':
        this.#begin(scenario, purchase)
        return this.#send('Order')
      case 'double-click':
        this.#begin(scenario, purchase)
        return Promise.all([this.#send('Click 1'), this.#send('Click 2')])
      case 'retry':
        await this.#continue(scenario, purchase)
        return this.#send('Retry')
      case 'other-amount':
        await this.#continue(scenario, purchase)
        return this.#send(`Now €${(this.story.amount + OTHER) / 100}`, { extra: OTHER })
      case 'kill-charging': {
        const { cart } = this.#begin(scenario, purchase)
        await this.#shop.killAt('while-charging', cart)
        return this.#send('Order')
      }
      case 'kill-charged': {
        const { cart } = this.#begin(scenario, purchase)
        await this.#shop.killAt('before-order', cart)
        return this.#send('Order')
      }
      case 'walk-away': {
        const { cart } = this.#begin(scenario, purchase)
        await this.#shop.killAt('before-order', cart)
        const answer = await this.#send('Order', { maxAttempts: 1 })
        return answer ?? this.#leaveIt()
      }
    }
  }

  /** Nobody asks again. */
  async #leaveIt() {
    const { key, pawl } = this.story
    const noted = (kind) => this.#shop.until(() => this.story.events.some((e) => e.kind === kind))
    await noted('killed')
    this.#add({ kind: 'left' })
    await noted('restarted')
    if (!pawl) return
    const { journal } = await this.#shop.until(
      ({ journal }) => journal?.key === key && journal.status === 'done',
    )
    this.#add({ kind: 'finished', attempt: journal.attempt })
  }

  /** The last purchase, if it was made the same way; otherwise a new one. */
  async #continue(scenario, purchase) {
    if (this.story && this.story.pawl === purchase.pawl) {
      this.story = { ...this.story, scenario }
      this.#changed()
    } else {
      this.#begin(scenario, purchase)
      await this.#send('Order')
    }
  }

  #begin(scenario, purchase) {
    this.#began = performance.now()
    const name = { cart: `A-${random(3)}`, key: `order-${random(8)}` }
    this.story = { ...purchase, ...name, scenario, events: [] }
    this.#changed()
    return this.story
  }

  async #send(label, { extra = 0, maxAttempts = PATIENT } = {}) {
    const { cart, item, amount, key, pawl } = this.story
    const events = new Map()
    // With or without Pawl, the customer does the same: sends a key, and retries under it.
    const request = {
      path: pawl ? '/orders' : '/naive/orders',
      key,
      body: JSON.stringify({ cart, item, amount: amount + extra }),
      maxAttempts,
      signal: this.#shop.signal,
    }
    return order(request, (nth, news) => {
      const known = events.get(nth)
      const event = known ? { ...known, ...news } : this.#stamped(named(label, nth, news))
      events.set(nth, event)
      this.#put(event)
    })
  }

  #add(event) {
    this.#put(this.#stamped(event))
  }

  #stamped(event) {
    this.#lastEvent += 1
    return { ...event, id: this.#lastEvent, atMs: Math.round(performance.now() - this.#began) }
  }

  /** Adds the event, or puts it in the place of what was known of it so far. */
  #put(event) {
    const { story } = this
    const known = story.events.some(({ id }) => id === event.id)
    const events = known
      ? story.events.map((other) => (other.id === event.id ? event : other))
      : [...story.events, event]
    this.story = { ...story, events }
    this.#changed()
  }
}

function named(label, nth, news) {
  const retry = label === 'Order' ? `Retry ${nth - 1}` : `${label}, retry ${nth - 1}`
  return { kind: 'try', label: nth === 1 ? label : retry, ...news }
}

/** So many random bytes, in hexadecimal; also where a page without TLS has no randomUUID. */
function random(bytes) {
  const values = crypto.getRandomValues(new Uint8Array(bytes))
  return Array.from(values, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
