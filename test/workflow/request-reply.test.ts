import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { TerminalError } from '../../lib/index.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const workflows = withWorkflows(database)

const servers: Server[] = []
afterEachTest(async () => {
  for (const server of servers.splice(0)) server.close()
})

async function listen(app: express.Express): Promise<string> {
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  servers.push(server)
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function start() {
  const pawl = workflows.pawl()
  const report = pawl.workflow('report', async (execution, fails: boolean) => {
    await execution.signal('data')
    if (fails) throw new TerminalError('no data')
    return { rows: 3, at: new Date(0) }
  })
  await pawl.start()
  const app = express()
  app.use(express.json())
  app.post('/reports', idempotency(pawl), async (req, res) => {
    const handle = await report.start(req.body.fails)
    res.status(202).location(`/reports/${handle.id}`).json({ id: handle.id })
  })
  app.get('/reports/:id', pawl.statusHandler({ authorize: () => true }))
  return { pawl, url: await listen(app) }
}

describe('A request that starts a workflow', () => {
  it.each([
    [false, { status: 'done', result: { rows: 3, at: '1970-01-01T00:00:00.000Z' } }],
    [true, { status: 'failed', error: { name: 'TerminalError', message: 'no data' } }],
  ])(
    'is answered 202, and the status endpoint tells how it ends (fails: %s)',
    async (fails, end) => {
      const { pawl, url } = await start()
      const key = freshKey()
      const ask = { key, body: { fails } }
      const accepted = await request(`${url}/reports`, ask)
      expect(accepted.status).toBe(202)
      const where = `${url}${accepted.headers.location}`
      const waiting = await request(where, { method: 'GET' })
      expect(waiting.status).toBe(202)
      expect(waiting.json).toMatchObject({ kind: 'workflow', name: 'report' })
      const poll = request(`${where}?wait=20`, { method: 'GET' })
      const { id } = accepted.json as { id: string }
      await pawl.signal(id, 'data')
      const final = await poll
      expect(final.status).toBe(200)
      expect(final.json).toEqual({ id, kind: 'workflow', name: 'report', ...end })
      // The start is in the request's journal, and the request is answered from its outcome.
      expect((await request(`${url}/reports`, ask)).json).toEqual({ id })
      const { rows } = await database.pool.query(
        `select count(*)::int as n from pawl.executions where kind = 'workflow' and id = $1`,
        [id],
      )
      expect(rows[0].n).toBe(1)
    },
  )

  it('that is a transaction starts the workflow with its commit, or not at all', async () => {
    const pawl = workflows.pawl()
    const ran: string[] = []
    const mail = pawl.workflow('mail', (_, to: string) => void ran.push(to))
    await pawl.start()
    const app = express()
    let fails = true
    app.post('/', idempotency(pawl, { transaction: true }), async (_req, res) => {
      const handle = await mail.start('ada')
      res.status(fails ? 500 : 201).json({ id: handle.id })
    })
    const url = await listen(app)
    const key = freshKey()
    const failed = await request(url, { key })
    expect(failed.status).toBe(500)
    expect(await workflows.status(failed.json.id)).toBeUndefined()
    fails = false
    const done = await request(url, { key })
    expect(done.json).toEqual(failed.json)
    await workflows.until(done.json.id, 'done')
    expect(ran).toEqual(['ada'])
  })
})
