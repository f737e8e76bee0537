import type { Pool } from 'pg'

/** What Pawl knows of one execution. */
export interface Journal {
  id: string
  key: string
  status: string
  attempt: number
  due_at: string | null
  error: { message?: string } | null
  steps: { name: string; kind: string; status: string; attempt: number; output: unknown }[]
}

/** The latest executions of a workflow with their steps, as anybody can read them: from Pawl's views. */
export async function readJournals(pool: Pool, workflow: string, limit = 20): Promise<Journal[]> {
  const { rows } = await pool.query<Journal>(
    `select e.id, e.key, e.status, e.attempt, e.due_at, e.error,
       (select coalesce(json_agg(json_build_object('name', s.name, 'kind', s.kind, 'status', s.status,
            'attempt', s.attempt, 'output', s.output) order by s.completed_at, s.position), '[]')
        from pawl.step_log s where s.execution_id = e.id) as steps
     from pawl.execution_log e where e.kind <> 'request' and e.name = $1
     order by e.created_at desc limit $2`,
    [workflow, limit],
  )
  return rows
}
