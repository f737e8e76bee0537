import type { Pool, PoolClient } from 'pg'

export type Verdict = 'approved' | 'rejected' | 'expired'

interface NewExpense {
  id: string
  employee: string
  what: string
  amount: number
}

export async function recordExpense(tx: PoolClient, expense: NewExpense): Promise<void> {
  await tx.query(
    'insert into example_approval.expenses (id, employee, what, amount) values ($1, $2, $3, $4)',
    [expense.id, expense.employee, expense.what, expense.amount],
  )
}

export async function decide(tx: PoolClient, id: string, verdict: Verdict): Promise<void> {
  await tx.query('update example_approval.expenses set verdict = $2 where id = $1', [id, verdict])
}

/** Stands in for a mail server: one mail for each idempotency key. */
export async function sendMail(pool: Pool, text: string, idempotencyKey: string): Promise<void> {
  await pool.query(
    'insert into example_approval.mails (key, text) values ($1, $2) on conflict do nothing',
    [idempotencyKey, text],
  )
}

export async function listExpenses(pool: Pool) {
  const { rows } = await pool.query(
    `select id, employee, what, amount, verdict from example_approval.expenses
     order by created_at desc limit 20`,
  )
  return rows
}

export async function listMails(pool: Pool) {
  const { rows } = await pool.query(
    'select key as id, text from example_approval.mails order by sent_at desc limit 20',
  )
  return rows
}
