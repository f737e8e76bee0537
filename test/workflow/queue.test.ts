import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('A queue', () => {
  it('runs what waits in it, a few at a time', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('few', { concurrency: 2 })
    let running = 0
    let most = 0
    const job = pawl.workflow('job', { queue }, async (_, n: number) => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setTimeout(resolve, 5))
      running--
      return n
    })
    await pawl.start()
    const handles = await job.startMany(Array.from({ length: 50 }, (_, input) => ({ input })))
    const results = await Promise.all(handles.map((handle) => handle.result()))
    expect(results).toEqual(Array.from({ length: 50 }, (_, n) => n))
    expect(most).toBe(2)
  })
})
