import type { Page } from 'playwright-core'

/** What the page shows of the last purchase. */
export interface Shown {
  verdict: string | null
  title: string | null
  orders: number
  charges: number
  /** Each try and each event, as one line of text. */
  events: string[]
}

/** The page of the example shop, as one who uses it. */
export class ShopPage {
  readonly errors: string[] = []
  readonly #page: Page
  #played = 0

  constructor(page: Page) {
    this.#page = page
    page.on('pageerror', (error) => this.errors.push(`page: ${error.message}`))
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.errors.push(message.text())
    })
  }

  async open(url: string): Promise<void> {
    await this.#page.goto(url)
    await this.#page.waitForSelector('[data-scenario=order][aria-disabled=false]')
  }

  /** Presses the button, and waits until all that it sets off has happened. */
  async press(name: string): Promise<Shown> {
    await this.#page.getByRole('button', { name }).click()
    this.#played += 1
    await this.#page.waitForSelector(`body[data-played="${this.#played}"]`)
    const verdict = this.#page.locator('#verdict')
    return {
      verdict: await verdict.getAttribute('data-verdict'),
      title: await verdict.locator('b').textContent(),
      orders: await this.#page.locator('#orders .current').count(),
      charges: await this.#page.locator('#ledger .current').count(),
      events: (await this.#page.locator('#events li').allInnerTexts()).map(inOneLine),
    }
  }

  async switchPawl(to: 'on' | 'off'): Promise<void> {
    const pawl = this.#page.getByRole('switch', { name: 'Pawl' })
    if ((await pawl.isChecked()) !== (to === 'on')) await pawl.click()
  }

  async totals(): Promise<{ orders: number; charges: number }> {
    const number = async (id: string) => Number(await this.#page.textContent(id))
    return { orders: await number('#order-count'), charges: await number('#charge-count') }
  }

  waitForText(text: string): Promise<void> {
    return this.#page.getByText(text).waitFor()
  }
}

function inOneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ')
}
