import { Pawl, type PawlOptions } from '../../lib/index.ts'
import { silent } from './app.ts'
import { afterEachTest } from './cleanup.ts'
import type { TestDatabase } from './database.ts'
import { waitFor } from './wait-for.ts'

/** Processes of an app that has workflows; they end with the test. */
export function withWorkflows(database: TestDatabase) {
  const pawls = new Set<Pawl>()
  afterEachTest(async () => {
    await Promise.all([...pawls].map((pawl) => pawl.stop()))
    pawls.clear()
  })
  const status = async (id: string): Promise<string | undefined> => {
    const sql = 'select status from pawl.execution_log where id = $1'
    return (await database.pool.query(sql, [id])).rows[0]?.status
  }
  return {
    /** A Pawl over the pool of the file's apps, that is not started. */
    pawl(options: Partial<PawlOptions> = {}): Pawl {
      const pawl = new Pawl({
        database: database.apps,
        logger: silent,
        drainTimeout: 0,
        ...options,
      })
      pawls.add(pawl)
      return pawl
    },

    status,

    /** Waits until the execution is in this status. */
    async until(id: string, wanted: string): Promise<void> {
      await waitFor(`${id} to be ${wanted}`, async () => (await status(id)) === wanted)
    },

    /** What was recorded, in order: `kind name`. */
    async journal(id: string): Promise<string[]> {
      const { rows } = await database.pool.query(
        `select kind || ' ' || name as entry from pawl.step_log
         where execution_id = $1 order by position, completed_at`,
        [id],
      )
      return rows.map(({ entry }) => entry)
    },
  }
}
