import type { Pool } from 'pg'
import type { Journal } from './board.ts'

/** What Pawl has recorded of an order, as anybody can read it: from its views. */
export async function readJournal(pool: Pool, key: string): Promise<Journal | null> {
  const { rows } = await pool.query<Journal>(
    `select e.key, e.status, e.attempt,
       (select coalesce(json_agg(json_build_object(
            'name', s.name, 'status', s.status, 'attempt', s.attempt) order by s.position), '[]')
        from pawl.step_log s where s.execution_id = e.id) as steps
     from pawl.execution_log e where e.key = $1
     order by e.created_at desc limit 1`,
    [key],
  )
  return rows[0] ?? null
}
