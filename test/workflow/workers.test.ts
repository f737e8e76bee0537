import pg from 'pg'
import { afterAll, describe, expect, it } from 'vitest'
import type { PawlOptions } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

/** Pawl shares it, and it has no connection to give away to listening. */
const tiny = new pg.Pool({ connectionString: database.url, max: 1 })
afterAll(() => tiny.end())

const STARTS = cases(3, { proof: 8 })

/** How long workflows take that one process starts and another runs, one after the other, in ms. */
async function handedOver(name: string, worker: Partial<PawlOptions>): Promise<number> {
  const [starter, elsewhere] = [app.pawl({ workers: false }), app.pawl(worker)]
  const [workflow] = [starter, elsewhere].map((pawl) => pawl.workflow(name, (_, n: number) => n))
  await Promise.all([starter.start(), elsewhere.start()])
  await (await workflow!.start(-1)).result()
  const began = performance.now()
  for (let n = 0; n < STARTS; n++) expect(await (await workflow!.start(n)).result()).toBe(n)
  return performance.now() - began
}

describe('A worker of another process', () => {
  it('is notified of due executions; if it cannot listen, it finds them later by polling', async () => {
    const listening = await handedOver('told', {})
    const polling = await handedOver('polled', { database: tiny })
    expect(listening).toBeLessThan(polling / 2)
  })
})
