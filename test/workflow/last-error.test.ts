import { expect, it, vi } from 'vitest'
import { listCommand, showCommand } from '../../lib/cli/execution-commands.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { withDatabase } from '../helpers/database.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

/** What `pawl list --all` and `pawl show` print. */
async function printed(id: string): Promise<string> {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const db = new NodePostgres(database.pool, 5000, false)
  try {
    await listCommand(db, 'pawl', { all: true, limit: 10 })
    await showCommand(db, 'pawl', id, undefined)
    return log.mock.calls.flat().join('\n')
  } finally {
    log.mockRestore()
  }
}

it('The error of a failed attempt is shown until the workflow ends, and nowhere once it has succeeded', async () => {
  const pawl = app.pawl()
  let isDown = true
  const workflow = pawl.workflow('order', { retry: { attempts: 1 } }, () => {
    if (isDown) throw new Error('the bank is closed')
    return 'paid'
  })
  await pawl.start()
  const handle = await workflow.start(undefined)
  const { id } = handle
  const status = pawl.statusResponse({ authorize: () => true })
  const everywhere = async () => ({
    handle: (await handle.status()).error?.message,
    pawl: (await pawl.status(id)).error?.message,
    view: (await database.pool.query('select error from pawl.execution_log where id = $1', [id]))
      .rows[0].error?.message,
    commands: (await printed(id)).match(/the bank is closed/)?.[0],
    endpoint: ((await (await status(new Request(`http://x/${id}`))).json()) as { error?: unknown })
      .error,
  })
  await app.until(id, 'parked')
  const message = 'the bank is closed'
  // The client of the endpoint is told of a failure only when it is final.
  const parked = { handle: message, pawl: message, view: message, commands: message }
  expect(await everywhere()).toEqual({ ...parked, endpoint: undefined })
  isDown = false
  await pawl.release({ id })
  expect(await handle.result()).toBe('paid')
  expect(await everywhere()).toEqual({
    handle: undefined,
    pawl: undefined,
    view: undefined,
    commands: undefined,
    endpoint: undefined,
  })
})
