import type { Page } from 'playwright-core'

/** What the page shows of the last purchase. */
export interface Shown {
  verdict: string | null
  title: string | null
  orders: number
  charges: number
  /** Each try and each event, as one line of text. */
  events: string[]
  /** Each step of the journal, the same way. */
  journal: string[]
}

/** The page of the example shop, as one who uses it. */
export class ShopPage {
  readonly errors: string[] = []
  /** The orders that the browser has sent since the last button was pressed. */
  readonly sent: { key: string | undefined; body: string | null }[] = []
  readonly #page: Page
  #played = 0

  constructor(page: Page) {
    this.#page = page
    // The tests have a time limit of their own.
    page.setDefaultTimeout(0)
    page.on('request', (request) => {
      if (!request.url().includes('/line/')) return
      this.sent.push({ key: request.headers()['idempotency-key'], body: request.postData() })
    })
    page.on('pageerror', (error) => this.errors.push(`page: ${error.message}`))
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.errors.push(message.text())
    })
  }

  async open(url: string): Promise<void> {
    await this.#page.goto(url)
    await this.#page.waitForSelector('[data-scenario=order][aria-disabled=false]')
  }

  /**
   * Presses the button, and waits until all that it sets off has happened.
   * @param meanwhile what the page shows in between
   */
  async press(name: string, meanwhile?: string): Promise<Shown> {
    this.sent.length = 0
    await this.#page.getByRole('button', { name }).click()
    if (meanwhile) await this.#page.waitForSelector(meanwhile)
    this.#played += 1
    await this.#page.waitForSelector(`body[data-played="${this.#played}"]`)
    const verdict = this.#page.locator('#verdict')
    return {
      verdict: await verdict.getAttribute('data-verdict'),
      title: await verdict.locator('b').textContent(),
      orders: await this.#page.locator('#orders .current').count(),
      charges: await this.#page.locator('#ledger .current').count(),
      events: await this.#linesOf('#events li'),
      journal: await this.#linesOf('#journal li'),
    }
  }

  /** What the list has, each row as one line of text. */
  rows(list: 'orders' | 'ledger'): Promise<string[]> {
    return this.#linesOf(`#${list} li`)
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

  async #linesOf(selector: string): Promise<string[]> {
    return (await this.#page.locator(selector).allInnerTexts()).map(inOneLine)
  }
}

function inOneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ')
}
