import type { Locator, Page } from 'playwright-core'
import { waitFor } from '../helpers/wait-for.ts'

/** The page of the example chatbot, as one who uses it. */
export class ChatPage {
  /** How often the page was loaded since it was opened. */
  loads = 0
  readonly #page: Page

  constructor(page: Page) {
    this.#page = page
    // The tests have a time limit of their own.
    page.setDefaultTimeout(0)
    page.on('request', (request) => {
      if (request.isNavigationRequest()) this.loads += 1
    })
  }

  /** Begins a conversation. */
  async open(url: string): Promise<void> {
    await this.#page.goto('about:blank')
    this.loads = 0
    await this.#page.goto(url)
    await waitFor('a new conversation', () => new URL(this.#page.url()).hash.length > 1)
  }

  async say(text: string): Promise<void> {
    await this.#page.getByRole('textbox', { name: 'Message' }).fill(text)
    await this.#page.getByRole('button', { name: 'Send' }).click()
  }

  /** The answer that is coming, once so many words of it are there. */
  async untilSaid(words: number): Promise<string> {
    const answer = this.#page.locator('#chat .model.open')
    return waitFor(`${words} words`, async () => {
      const [text = ''] = await answer.allTextContents()
      return text.split(' ').length > words ? text : null
    })
  }

  /** What the model has said, when it has said so many things and nothing is coming any more. */
  async answers(count: number): Promise<string[]> {
    const done = this.#page.locator('#chat .model:not(.open)')
    await done.nth(count - 1).waitFor()
    return done.allTextContents()
  }

  /** Each thing of the conversation, in order. */
  rows(): Promise<string[]> {
    return this.#page.locator('#chat li').allTextContents()
  }

  async reload(): Promise<void> {
    await this.#page.reload()
  }

  /** Resolves when the page is served by another process than this. */
  async untilServedBy(pid: number): Promise<void> {
    await this.#page.locator('#pid', { hasText: String(pid) }).waitFor()
  }

  /** The question whether a tool may be run. */
  get question(): Locator {
    return this.#page.locator('#chat .ask')
  }

  click(verdict: 'approve' | 'decline'): Promise<void> {
    return this.#page.getByRole('button', { name: verdict }).click()
  }

  waitForText(text: string): Promise<void> {
    return this.#page.getByText(text).last().waitFor()
  }
}
