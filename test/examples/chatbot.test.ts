import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { answerTo } from '../../examples/chatbot/stand-in/script.ts'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { proofOnly } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { ChatPage } from './chat-page.ts'
import { launchChromium } from './chromium.ts'
import { withExample } from './example.ts'

/** A browser, three processes, and answers that take a while; a busy machine takes its time. */
const SLOW = { timeout: 120_000 }

const example = withExample('chatbot')
let model: ChildApp
let browser: Browser
let page: ChatPage
let url: string

beforeAll(async () => {
  model = await spawnApp('../../examples/chatbot/stand-in/server.ts', { WORD_MS: '80', PORT: '0' })
  ;[browser, url] = await Promise.all([launchChromium(), start()])
  page = new ChatPage(await browser.newPage())
}, 240_000)

afterAll(() => browser?.close())

const start = () => example.start({ MODEL_URL: model.url })

/** Whether each question that the model got about this was asked from the start, or for the rest. */
async function asks(said: string): Promise<string[]> {
  const response = await fetch(`${model.url}/asks`)
  const all = (await response.json()) as { said: string; continued: boolean }[]
  return all.filter((ask) => ask.said === said).map((ask) => (ask.continued ? 'rest' : 'all'))
}

const answerOf = (said: string) => answerTo([{ role: 'user', content: said }]).text

describe('the chatbot example', SLOW, () => {
  it('names a new conversation without loading the page again, so that nothing typed is lost', async () => {
    await page.open(url)
    // By then a reload would have begun.
    await page.untilServedBy(example.pid)
    expect(page.loads).toBe(1)
  })

  proofOnly(
    'goes on with an answer in the middle of which the server was killed, and asks the model once',
    async () => {
      const said = 'What is a pawl?'
      await page.open(url)
      await page.say(said)
      const heard = await page.untilSaid(15)
      await example.kill()
      await start()
      await page.untilServedBy(example.pid)
      const [answer] = await page.answers(1)
      expect(answer).toBe(answerOf(said))
      expect(answer?.startsWith(heard)).toBe(true)
      expect(await asks(said)).toEqual(['all', 'rest'])
    },
  )

  proofOnly('shows the same after a reload in the middle of an answer, and the rest', async () => {
    const said = 'What is a ratchet?'
    await page.open(url)
    await page.say(said)
    await page.untilSaid(15)
    await page.reload()
    expect(await page.answers(1)).toEqual([answerOf(said)])
    expect(await page.rows()).toEqual([said, answerOf(said)])
    expect(await asks(said)).toEqual(['all'])
  })

  it('waits for an approval over a kill, and refunds once', async () => {
    const said = 'I want a refund for order 7'
    await page.open(url)
    await page.say(said)
    await page.question.waitFor()
    await waitFor('the conversation to sleep', async () => {
      const sql = `select status from pawl.execution_log where kind = 'object' and due_at is not null`
      return (await example.row(sql))?.status === 'waiting'
    })
    await example.kill()
    await start()
    await page.untilServedBy(example.pid)
    await page.click('approve')
    await page.waitForText('Is there anything else?')
    expect(await page.rows()).toEqual([
      said,
      'Let me look at your order.',
      'look_up_order {"order":"7"}',
      'Order 7: one moka pot, 34 euros, delivered yesterday.',
      'I have found it. I am asking a colleague whether you can have your money back.',
      'refund {"order":"7","euros":34}',
      'A colleague has approved it.',
      'Refunded 34 euros for order 7.',
      'This is what became of it: Refunded 34 euros for order 7. Is there anything else?',
    ])
    const refunds = 'select order_id, euros::int from example_chatbot.refunds'
    expect((await example.pool.query(refunds)).rows).toEqual([{ order_id: '7', euros: 34 }])
    expect(await asks(said)).toEqual(['all', 'all', 'all']) // Once for each of its three answers.
  })

  proofOnly(
    'tells the model what was declined, remembers, and answers one after the other',
    async () => {
      await page.open(url)
      await page.say('I want my money back for order 8')
      await page.question.waitFor()
      await page.say('Where is order 9?')
      await page.click('decline')
      await page.waitForText('Enjoy it!')
      const rows = await page.rows()
      const declined = rows.indexOf('A colleague has declined it.')
      const next = rows.indexOf('Where is order 9?')
      expect(declined).toBeGreaterThan(0)
      expect(next).toBeGreaterThan(declined)
      const { value } = await example.row(
        `select count(*)::int as value from example_chatbot.refunds where order_id = '8'`,
      )
      expect(value).toBe(0)
    },
  )
})
