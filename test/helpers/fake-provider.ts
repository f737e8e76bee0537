import { setTimeout as sleep } from 'node:timers/promises'

interface Charge {
  id: string
  reference: string
  amount: number
  key: string | null
  refunded: boolean
}

/** Somebody else's API with a ledger: it charges once for each idempotency key it is given. */
export class FakeProvider {
  readonly ledger: Charge[] = []

  async charge(reference: string, amount: number, key: string | null = null): Promise<Charge> {
    await sleep(1)
    const known = key === null ? undefined : this.ledger.find((charge) => charge.key === key)
    if (known) return known
    const id = `ch_${this.ledger.length + 1}`
    const charge = { id, reference, amount, key, refunded: false }
    this.ledger.push(charge)
    return charge
  }

  async refund(id: string): Promise<void> {
    await sleep(1)
    const charge = this.ledger.find((charge) => charge.id === id)
    if (charge) charge.refunded = true
  }

  /** Amounts that were charged for a reference, and not given back. */
  charged(reference: string): number[] {
    return this.#of(reference, false)
  }

  refunded(reference: string): number[] {
    return this.#of(reference, true)
  }

  #of(reference: string, refunded: boolean): number[] {
    return this.ledger
      .filter((charge) => charge.reference === reference && charge.refunded === refunded)
      .map((charge) => charge.amount)
  }
}
