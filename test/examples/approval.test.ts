import { beforeAll, describe, expect, it } from 'vitest'
import { freshKey } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withExample } from './example.ts'

const example = withExample('approval')
beforeAll(() => example.start())

async function ask() {
  const { body } = await example.post(
    '/expenses',
    { employee: freshKey(), what: 'A chair', amount: 30000 },
    { 'Idempotency-Key': freshKey() },
  )
  const { id } = body
  const row = (sql: string) => example.row(sql, [id])
  const status = async () =>
    (await row('select status from pawl.execution_log where key = $1'))?.status
  return {
    id,
    click: (verdict: string) => example.post(`/expenses/${id}/${verdict}`),
    asleep: () => waitFor('it to sleep', async () => (await status()) === 'waiting'),
    verdict: () =>
      waitFor('a verdict', async () => {
        const found = await row('select verdict from example_approval.expenses where id = $1')
        return (await status()) === 'done' && (found?.verdict as string)
      }),
    mails: async () =>
      (
        await row(
          `select count(*)::int from example_approval.mails m
           join example_approval.expenses e on m.text like e.employee || '%' where e.id = $1`,
        )
      ).count,
  }
}

describe('the approval example', () => {
  it('sleeps until somebody decides', async () => {
    const { id, click, asleep, verdict, mails } = await ask()
    await asleep()
    expect((await click('approve')).status).toBe(202)
    expect(await verdict()).toBe('approved')
    expect(await mails()).toBe(1)
    const journal = await example.journal(id)
    expect(journal.filter((entry) => entry !== 'sleep sleep')).toEqual([
      'transaction record',
      'step send mail',
      'signal decision',
      'transaction decide',
    ])
    expect((await click('reject')).status).toBe(410)
  })

  it('takes the first of many clicks', async () => {
    const { id, click, asleep, verdict } = await ask()
    await asleep()
    await click('reject')
    await Promise.all([click('approve'), click('approve')])
    expect(await verdict()).toBe('rejected')
    const { count } = await example.row(
      `select count(*)::int from pawl.step_log where key = $1 and kind = 'signal' and status = 'done'`,
      [id],
    )
    expect(count).toBe(1)
  })

  it('waits over a kill, and is decided after it', async () => {
    const { click, asleep, verdict, mails } = await ask()
    await asleep()
    await example.kill()
    await example.start()
    await click('approve')
    expect(await verdict()).toBe('approved')
    expect(await mails()).toBe(1)
  })

  it('reminds, and expires when nobody answers', async () => {
    await example.kill()
    await example.start({ PATIENCE: '4s', REMIND_EVERY: '1500ms' })
    const { verdict, mails } = await ask()
    expect(await verdict()).toBe('expired')
    // It asked once, and reminded as often as a busy machine came to it.
    expect(await mails()).toBeGreaterThanOrEqual(2)
  })

  it('answers what makes no sense', async () => {
    const wrong = await example.post('/expenses', { amount: -1 })
    expect(wrong.status).toBe(400)
    const nothing = await example.post(`/expenses/${crypto.randomUUID()}/approve`)
    expect(nothing.status).toBe(410)
  })
})
