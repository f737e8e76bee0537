/** Somebody asks for money, and a manager has days to say yes or no. */
import express, { type ErrorRequestHandler, type Express } from 'express'
import { idempotency } from 'pawl/express'
import { z } from 'zod'
import { readJournals } from '../support/journals.ts'
import { live, servePage } from '../support/pages.ts'
import type { AppParts } from '../support/serve.ts'
import { listExpenses, listMails } from './expenses.ts'
import { createTables } from './tables.ts'
import { defineApproval, expense } from './workflow.ts'

const request = expense.omit({ id: true })
const click = z.object({ id: z.uuid(), verdict: z.enum(['approve', 'reject']) })

export async function createApp({ pawl, pool }: AppParts): Promise<Express> {
  await createTables(pool)
  const approval = defineApproval(pawl, {
    pool,
    patience: process.env.PATIENCE ?? '3 days',
    remindEvery: process.env.REMIND_EVERY ?? '1 day',
  })

  const app = express()
  servePage(app, new URL('./page/', import.meta.url), 'Expense approval')

  app.post(
    '/expenses',
    idempotency(pawl, { resumable: true }),
    express.json(),
    async (req, res) => {
      const asked = request.parse(req.body)
      // The same in every attempt, so that a request that is retried starts one workflow.
      const id = req.execution?.uuid() ?? crypto.randomUUID()
      await approval.start({ id, ...asked }, { key: id })
      res.status(202).json({ id })
    },
  )

  // What the links in the manager's mail lead to; a form, since whatever opens links must decide nothing.
  app.post('/expenses/:id/:verdict', async (req, res) => {
    const { id, verdict } = click.parse(req.params)
    // One sender's id for all clicks: the first is kept, and whatever comes after it changes nothing.
    await approval
      .handle(id)
      .signal('decision', { approved: verdict === 'approve' }, { id: 'click' })
    res.status(202).json({ id })
  })

  app.get(
    '/live',
    live(async () => ({
      pid: process.pid,
      expenses: await listExpenses(pool),
      mails: await listMails(pool),
      journals: await readJournals(pool, approval.name),
    })),
  )
  app.use(explain)
  return app
}

const explain: ErrorRequestHandler = (error, _req, res, next) => {
  if (error instanceof z.ZodError) res.status(400).json({ error: z.prettifyError(error) })
  else if (error.code === 'execution-missing') {
    res.status(410).json({ error: 'This has been decided, or there is no such expense.' })
  } else next(error)
}
