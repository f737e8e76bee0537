import type { Duration, Pawl, Workflow, WorkflowExecution } from 'pawl'
import type { Pool } from 'pg'
import { z } from 'zod'
import { decide, recordExpense, sendMail, type Verdict } from './expenses.ts'

export const expense = z.object({
  id: z.uuid(),
  employee: z.string().min(1).max(60),
  what: z.string().min(1).max(100),
  amount: z.int().positive(),
})
type Expense = z.infer<typeof expense>

const decision = z.object({ approved: z.boolean() })

/** What the workflow works with. */
export interface Office {
  pool: Pool
  /** How long it waits for the manager. */
  patience: Duration
  remindEvery: Duration
}

/** Asks, reminds, and gives up in the end. While it waits it is a row in the database, and nothing else. */
export function defineApproval(
  pawl: Pawl,
  { pool, patience, remindEvery }: Office,
): Workflow<Expense, Verdict> {
  return pawl.workflow('approve expense', { input: expense }, async (execution, asked) => {
    await execution.transaction('record', (tx) => recordExpense(tx, asked))
    await mail(execution, `${asked.employee} asks for ${asked.what}.`)

    // Undefined once the patience is over; the click and the clock cannot both win.
    const answer = execution.signal('decision', { schema: decision, timeout: patience })
    for (;;) {
      const reminder = execution.sleep(remindEvery).then(() => 'remind' as const)
      const first = await Promise.race([answer, reminder])
      if (first === 'remind') {
        await mail(execution, `${asked.employee} still waits for ${asked.what}.`)
        continue
      }
      const verdict = first === undefined ? 'expired' : first.approved ? 'approved' : 'rejected'
      await execution.transaction('decide', (tx) => decide(tx, asked.id, verdict))
      return verdict
    }
  })

  function mail(execution: WorkflowExecution, text: string) {
    return execution.step('send mail', ({ idempotencyKey }) => sendMail(pool, text, idempotencyKey))
  }
}
