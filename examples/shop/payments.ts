import { TerminalError } from 'pawl'
import { z } from 'zod'

/** The payment provider's API, as the shop uses it. */
export class Payments {
  readonly #url: string

  constructor(url: string) {
    this.#url = url
  }

  /** @returns the charge's id */
  async charge(
    { cart, amount, card }: { cart: string; amount: number; card: string },
    key: string,
  ): Promise<string> {
    const { id } = await this.#ask('charges', { reference: cart, amount, card }, key)
    return id
  }

  async refund(charge: string, key: string): Promise<void> {
    await this.#ask('refunds', { charge }, key)
  }

  async sendReceipt(charge: string, email: string, key: string): Promise<void> {
    await this.#ask('receipts', { charge, email }, key)
  }

  async #ask(path: string, body: object, key: string) {
    const response = await fetch(`${this.#url}/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': key },
      body: JSON.stringify(body),
    })
    if (response.ok) return z.object({ id: z.string() }).parse(await response.json())
    const { status } = response
    // No retry can help: the failure itself is recorded, and the order given up.
    if (status < 500) throw new TerminalError(await response.text(), { status })
    throw new Error(`The payment provider answered ${status}`)
  }
}
