import { randomBytes } from 'node:crypto'
import type { Request, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { type Execution, Pawl, type PawlOptions, TerminalError } from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'

const database = withDatabase()
const keyOf = (id: string) => ({ id, key: randomBytes(32).toString('base64') })
const a = keyOf('2026-a')
const b = keyOf('2026-b')
const AWAY = 'urn:pawl:problem:store-unavailable'
const SECRET = 'the-secret-of-the-customer'

type Keys = PawlOptions['encryptionKeys']
type Handler = (execution: Execution, res: Response, req: Request) => unknown

/** An app with these keys; what it logs ends up in `log`. */
async function start(keys: Keys, handler: Handler, log: unknown[] = []) {
  const note = (...line: unknown[]) => log.push(line)
  const pawl = { ...(keys && { encryptionKeys: keys }), logger: { debug: note, warn: note } }
  const { url } = await startApp(
    database.url,
    { wait: 0 },
    (app) => {
      app.post('/', (req, res) => handler(req.execution as Execution, res, req))
    },
    { pawl },
  )
  return { url, post: (key: string) => request(url, { key, body: { of: SECRET } }) }
}

const answers: Handler = async (execution, res) => {
  const card = await execution.step('card', () => ({ secret: SECRET, at: new Date(0) }))
  await execution.step('bad', () => Promise.reject(new TerminalError(SECRET))).catch(() => {})
  res.set('X-Card', SECRET).json({ card, attempt: execution.attempt })
}
/** Answers 503 in its first attempt, behind a step. */
const resumes: Handler = async (execution, res) => {
  const n = await execution.step('n', () => ({ secret: SECRET, of: execution.attempt }))
  if (execution.attempt === 1) return res.status(503).end()
  res.json(n)
}

/** Everything that is stored, as text and as hex. */
async function allTables(): Promise<string> {
  const tables = ['executions', 'steps', 'wakeups', 'processes']
  const rows = await Promise.all(
    tables.map((table) => database.pool.query(`select t::text as row from pawl.${table} t`)),
  )
  return rows.flatMap((result) => result.rows.map(({ row }) => row)).join('\n')
}

describe('encryption at rest', () => {
  it('nothing of bodies, headers, step values and failures is readable in the tables', async () => {
    const app = await start([a], answers)
    const key = freshKey()
    const first = await app.post(key)
    expect(first.json.card).toEqual({ secret: SECRET, at: new Date(0).toISOString() })
    const again = await app.post(key)
    expect(again.headers).toMatchObject({ 'idempotent-replayed': 'true', 'x-card': SECRET })
    expect(again.body).toEqual(first.body)
    const stored = await allTables()
    expect(stored).toContain(key)
    for (const secret of [SECRET, Buffer.from(SECRET).toString('base64').slice(0, 30)]) {
      expect(stored).not.toContain(secret)
      expect(stored).not.toContain(Buffer.from(secret).toString('hex'))
    }
    const views = await Promise.all(
      ['execution_log', 'step_log'].map((view) =>
        database.pool.query(`select t::text as row from pawl.${view} t where key = $1`, [key]),
      ),
    )
    const shown = JSON.stringify(views.map(({ rows }) => rows))
    expect(shown).not.toContain(SECRET)
    expect(shown).toContain('bytes, encrypted with key 2026-a>')
  })

  it('rotation: what the old key encrypted still replays and resumes, and the new one encrypts', async () => {
    const old = await start([a], resumes)
    const [done, open] = [freshKey(), freshKey()]
    await old.post(done)
    const first = await old.post(done)
    await old.post(open)
    const rotated = await start([b, a], resumes)
    expect((await rotated.post(done)).body).toEqual(first.body)
    expect((await rotated.post(open)).json).toEqual({ secret: SECRET, of: 1 })
    const fresh = freshKey()
    await rotated.post(fresh)
    const only = await start([b], resumes)
    expect((await only.post(fresh)).json).toEqual({ secret: SECRET, of: 1 })
  })

  it.each<[string, Keys]>([
    ['missing', []],
    ['another', [b]],
    ['another under the same id', [{ id: a.id, key: b.key }]],
  ])('the key is %s: 503, nothing runs, nothing is lost, and it heals', async (_, keys) => {
    const right = await start([a], resumes)
    const [done, open] = [freshKey(), freshKey()]
    await right.post(done)
    const first = await right.post(done)
    await right.post(open)
    let ran = 0
    const log: unknown[] = []
    const wrong = await start(
      keys,
      (_execution, res) => {
        ran++
        res.status(402).json('taken for a failure of the step')
      },
      log,
    )
    for (const key of [done, open, open]) {
      const refused = await wrong.post(key)
      expect(refused).toMatchObject({ status: 503, json: { type: AWAY } })
      expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    }
    expect(ran).toBe(0)
    const told = JSON.stringify(log, (_, v) => (v instanceof Error ? [v.stack, v.cause] : v))
    expect(told).toContain('Add the key that it was stored with to encryptionKeys')
    for (const { key } of [a, b]) {
      expect(told).not.toContain(key)
      expect(told).not.toContain(Buffer.from(key, 'base64').toString('hex'))
    }
    expect((await right.post(done)).body).toEqual(first.body)
    expect((await right.post(open)).json).toEqual({ secret: SECRET, of: 1 })
  })

  it('what was stored before there were keys still replays and resumes', async () => {
    const plain = await start([], resumes)
    const [done, open] = [freshKey(), freshKey()]
    await plain.post(done)
    const first = await plain.post(done)
    await plain.post(open)
    const keyed = await start([a], resumes)
    expect((await keyed.post(done)).body).toEqual(first.body)
    expect((await keyed.post(open)).json).toEqual({ secret: SECRET, of: 1 })
  })

  it('bytes that were moved to another row do not open', async () => {
    const app = await start([a], answers)
    const [mine, theirs] = [freshKey(), freshKey()]
    await app.post(mine)
    await app.post(theirs)
    await database.pool.query(
      `update pawl.executions t set response_headers = s.response_headers, response_body = s.response_body
       from pawl.executions s where s.key = $1 and t.key = $2`,
      [theirs, mine],
    )
    expect((await app.post(mine)).status).toBe(503)
    expect((await app.post(theirs)).status).toBe(200)
  })

  it('bytes of one step moved to another do not open, and the handler does not run', async () => {
    let ran = 0
    const app = await start([a], async (execution, res) => {
      ran++
      await execution.step('x', () => 'x')
      await execution.step('y', () => 'y')
      res.status(execution.attempt === 1 ? 503 : 200).end()
    })
    const key = freshKey()
    await app.post(key)
    await database.pool.query(
      `update pawl.steps t set output = s.output from pawl.steps s, pawl.executions e
       where e.key = $1 and s.execution_id = e.id and t.execution_id = e.id
         and s.name = 'x' and t.name = 'y'`,
      [key],
    )
    expect((await app.post(key)).status).toBe(503)
    expect(ran).toBe(1)
  })

  it.each<[string, unknown]>([
    ['too short', [{ id: 'k', key: Buffer.alloc(31, 'k3y').toString('base64') }]],
    ['no base64', [{ id: 'k', key: 'k3yk3yk3yk3yk3y-super-secret' }]],
    ['bytes of a wrong length', [{ id: 'k', key: Buffer.from('k3yk3y') }]],
    ['under a wrong name', [{ id: 'k', secret: 'k3yk3yk3y' }]],
    ['no list', { id: 'k', key: 'k3yk3yk3y' }],
    ['a string', 'k3yk3yk3y'],
  ])('a key that is refused is not in the message: %s', (_, encryptionKeys) => {
    const make = () => new Pawl({ database: database.url, encryptionKeys } as PawlOptions)
    expect(make).toThrow(/encryptionKeys/)
    try {
      make()
    } catch (error) {
      const told = `${(error as Error).stack} ${JSON.stringify(error)}`
      expect(told).not.toContain('k3yk3y')
      expect(told).not.toContain(Buffer.alloc(31, 'k3y').toString('base64'))
    }
  })
})
