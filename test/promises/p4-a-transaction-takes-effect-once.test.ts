import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases, variants } from '../helpers/proof.ts'
import { freshKey, type RawResponse, request } from '../helpers/request.ts'
import { type Passing, startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const routes = ['/step', '/whole'] as const

beforeAll(() =>
  database.pool.query('create table orders (id serial, key text, once text unique, pid int)'),
)
beforeEach(() => database.pool.query('truncate orders, pawl.executions, pawl.steps'))

const spawn = (url: string, pawl: object, route: object = {}) =>
  spawnApp('transactions.ts', {
    DATABASE_URL: url,
    PAWL: JSON.stringify(pawl),
    ROUTE: JSON.stringify({ wait: '20s', ...route }),
  })

/** As a patient client does: again with the same key until the answer is final. */
async function persistently(url: string, key: string, body: object): Promise<RawResponse> {
  for (;;) {
    const answer = await request(url, { key, body }).catch(() => null)
    if (answer && answer.status < 500 && answer.status !== 409) return answer
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** The app's rows and Pawl's, of all keys. */
async function effects() {
  const { rows } = await database.pool.query(
    `select e.key, e.name, e.status, e.attempt,
       (select count(*)::int from orders o where o.key = e.key) as orders,
       (select count(*)::int from pawl.steps s where s.execution_id = e.id) as steps,
       (select o.id from orders o where o.key = e.key limit 1) as id
     from pawl.executions e`,
  )
  return new Map(rows.map((row) => [row.key as string, row]))
}

/** Each key has one row of the app's, one entry or outcome that tells of it, and one answer. */
async function expectOnce(answers: ReadonlyMap<string, readonly RawResponse[]>) {
  const found = await effects()
  expect(found.size).toBe(answers.size)
  const { rows } = await database.pool.query('select count(*)::int as n from orders')
  expect(rows[0].n).toBe(answers.size)
  for (const [key, all] of answers) {
    const { name, status, orders, steps, id } = found.get(key) as NonNullable<unknown> as Record<
      string,
      unknown
    >
    expect({ status, orders, steps }).toEqual({
      status: 'done',
      orders: 1,
      steps: name === 'POST /step' ? 1 : 0,
    })
    for (const answer of all) {
      expect([answer.status, answer.text]).toEqual([201, JSON.stringify({ id })])
    }
  }
}

const isBegin = (s: string) => /^Q.{4}begin\0/s.test(s)
const isWrite = (s: string) => s.includes('insert into orders')
const isEntry = (s: string) =>
  s.includes('left join recorded on true') || s.includes('left join done on true')
const isCommit = (s: string) => /^Q.{4}commit\0/s.test(s)

/** Each place of a transaction where its process can die. */
const boundaries: [name: string, at: 'statement' | 'reply', is: (s: string) => boolean][] = [
  ['before it begins', 'statement', isBegin],
  ['when it has begun', 'reply', isBegin],
  ['before the first write', 'statement', isWrite],
  ['after the write', 'reply', isWrite],
  ["before the journal's entry", 'statement', isEntry],
  ["after the journal's entry", 'reply', isEntry],
  ['before the commit', 'statement', isCommit],
  ['when it has committed, and does not know it', 'reply', isCommit],
]

describe('P4 A transaction takes effect exactly once', () => {
  describe('one process is killed (kill -9) while it is at every boundary at once', () => {
    let survivor: ChildApp
    beforeAll(async () => {
      survivor = await spawn(database.url, { processTimeout: '1s' })
    })
    afterAll(() => survivor.kill())

    it.each(routes)('%s', async (route) => {
      let boundary: (typeof boundaries)[number] | undefined
      const hold = (at: 'statement' | 'reply') => (passing: Passing) => {
        if (boundary?.[1] === at && boundary[2](passing.statement)) boundary = undefined
        else passing.forward()
      }
      const tap = await startTap(database.url, {
        onStatement: hold('statement'),
        onReply: hold('reply'),
      })
      const victim = await spawn(tap.url, { processTimeout: '1s' })
      const keys = new Map<string, string>()
      for (const unique of variants([false, true], [true])) {
        for (const next of boundaries) {
          const key = freshKey()
          keys.set(key, `${next[0]}${unique ? ', unique' : ''}`)
          boundary = next
          request(`${victim.url}${route}`, { key, body: { unique } }).catch(() => {})
          await waitFor(next[0], () => boundary === undefined)
        }
      }
      const before = await effects()
      await victim.kill()
      const answers = await Promise.all(
        [...keys].map(async ([key, name]) => {
          const body = { unique: name.endsWith('unique') }
          return [key, [await persistently(`${survivor.url}${route}`, key, body)]] as const
        }),
      )
      await expectOnce(new Map(answers))
      // What was committed was there before, and what was not was not.
      const { rows } = await database.pool.query('select key, pid from orders')
      for (const { key, pid } of rows) {
        const committed = keys.get(key)?.startsWith('when it has committed')
        expect([keys.get(key), pid]).toEqual([keys.get(key), committed ? victim.pid : survivor.pid])
        expect(before.get(key)?.orders).toBe(committed ? 1 : 0)
      }
      await tap.close()
    })
  })

  describe('two processes that take each other for dead race for every key', () => {
    const pawl = { processTimeout: '10 minutes', storeTimeout: '30s' }
    let apps: ChildApp[]
    beforeAll(async () => {
      apps = await Promise.all([spawn(database.url, pawl), spawn(database.url, pawl)])
      // Their next heartbeat is minutes away.
      await database.pool.query(`update pawl.processes set expires_at = 'epoch'`)
    })
    afterAll(() => Promise.all(apps.map((app) => app.kill())))

    it.each([
      ['/step', cases(40, { proof: 400 })],
      ['/whole', cases(40, { proof: 200 })],
    ] as const)('%s, %i keys', async (route, count) => {
      const answers = new Map<string, RawResponse[]>()
      const keys = Array.from({ length: count }, (_, i) => [freshKey(), i % 2 === 0] as const)
      const client = async () => {
        for (let next = keys.pop(); next; next = keys.pop()) {
          const [key, unique] = next
          const order = Math.random() < 0.5 ? apps : apps.toReversed()
          const both = order.map(({ url }) => persistently(`${url}${route}`, key, { unique }))
          answers.set(key, await Promise.all(both))
        }
      }
      await Promise.all(Array.from({ length: 12 }, client))
      await expectOnce(answers)
      // And it was a race.
      const raced = [...(await effects()).values()].filter(({ attempt }) => attempt > 1)
      expect(raced.length).toBeGreaterThan(count / 20)
    })
  })
})
