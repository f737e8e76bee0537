import { describe, expect, it } from 'vitest'
import { spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { freshKey, type RawResponse, request } from '../helpers/request.ts'
import { runsByKey, withRuns } from '../helpers/runs.ts'

const KEYS = cases(40, { proof: 120 })
const DUPLICATES = 20

describe('P1 One outcome', () => {
  const database = withDatabase()
  withRuns(database)

  it(`runs each of ${KEYS} handlers once for ${DUPLICATES} concurrent duplicates over two processes`, async () => {
    const env = { DATABASE_URL: database.url, ROUTE: JSON.stringify({ wait: '20s' }) }
    const apps = await Promise.all([spawnApp('orders.ts', env), spawnApp('orders.ts', env)])
    const keys = Array.from({ length: KEYS }, freshKey)
    const answers = new Map<string, RawResponse[]>(keys.map((key) => [key, []]))
    // Twenty keys at a time: 400 requests in flight, half of them at each process.
    for (let at = 0; at < KEYS; at += 20) {
      const group = keys.slice(at, at + 20).flatMap((key) =>
        Array.from({ length: DUPLICATES }, async (_, i) => {
          const app = apps[i % 2]!
          const answer = await request(`${app.url}/orders`, { key, body: { ms: 5 } })
          answers.get(key)!.push(answer)
        }),
      )
      await Promise.all(group)
    }
    for (const [key, all] of answers) {
      const first = all.filter((answer) => !answer.headers['idempotent-replayed'])
      expect({ key, answers: all.length, first: first.length }).toEqual({
        key,
        answers: DUPLICATES,
        first: 1,
      })
      for (const answer of all) {
        expect(answer.status).toBe(201)
        expect(answer.body).toEqual(first[0]!.body)
        expect(endToEnd(answer)).toEqual(endToEnd(first[0]!))
      }
    }
    const runs = await runsByKey(database.pool)
    expect([...runs.values()].every((n) => n === 1)).toBe(true)
    expect(runs.size).toBe(KEYS)
    // Both processes did their share, or this proved nothing about two.
    const { rows } = await database.pool.query('select count(distinct pid)::int as n from runs')
    expect(rows[0].n).toBe(2)
  }, 120_000)
})

function endToEnd({ headers }: RawResponse) {
  const {
    date,
    connection,
    'keep-alive': keepAlive,
    'idempotent-replayed': replayed,
    ...rest
  } = headers
  return rest
}
