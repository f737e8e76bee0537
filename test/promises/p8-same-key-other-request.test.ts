import { beforeAll, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { runsByKey, withRuns } from '../helpers/runs.ts'
import { waitFor } from '../helpers/wait-for.ts'

describe('P8 Same key, different request: refused, never run, nothing overwritten', () => {
  const database = withDatabase()
  withRuns(database)
  let apps: [ChildApp, ChildApp]
  beforeAll(async () => {
    const start = () => spawnApp('orders.ts', { DATABASE_URL: database.url })
    apps = await Promise.all([start(), start()])
  })

  it('while the first is running, and after it, at every process', async () => {
    const key = freshKey()
    const url = `${apps[0].url}/orders`
    const client = await database.pool.connect()
    await client.query('select pg_advisory_lock(1)')
    const running = request(url, { key, body: { lock: 1 } })
    await waitFor('the first run', async () => (await runsByKey(database.pool)).get(key))
    const different = () =>
      apps.flatMap(({ url }) => [
        request(`${url}/orders`, { key, body: { lock: 2 } }),
        request(`${url}/orders?page=2`, { key, body: { lock: 1 } }),
        request(`${url}/orders`, { key, method: 'PATCH', body: { lock: 1 } }),
        request(`${url}/orders`, {
          key,
          body: '{"lock":1}',
          headers: { 'Content-Type': 'application/vnd.api+json' },
        }),
      ])
    // Not one of them waits for the first.
    const meanwhile = await Promise.all(different())
    await client.query('select pg_advisory_unlock(1)')
    client.release()
    const first = await running
    const afterwards = await Promise.all(different())
    for (const answer of [...meanwhile, ...afterwards]) {
      expect(answer.status).toBe(422)
      expect(answer.json.type).toBe('urn:pawl:problem:request-mismatch')
    }
    expect((await runsByKey(database.pool)).get(key)).toBe(1)
    for (const app of apps) {
      const again = await request(`${app.url}/orders`, { key, body: { lock: 1 } })
      expect(again.body).toEqual(first.body)
    }
  })

  it('of two different requests that race for one key, one runs and the other is refused', async () => {
    const keys = Array.from({ length: cases(30, { proof: 100 }) }, freshKey)
    await Promise.all(
      keys.map(async (key) => {
        const answers = await Promise.all(
          Array.from({ length: 6 }, (_, i) =>
            request(`${apps[i % 2]!.url}/orders`, { key, body: { ms: 1 + (i % 3) } }),
          ),
        )
        const counts = { 201: 0, 422: 0 } as Record<number, number>
        for (const answer of answers) counts[answer.status] = (counts[answer.status] ?? 0) + 1
        expect(counts).toEqual({ 201: 2, 422: 4 })
      }),
    )
    const runs = await runsByKey(database.pool)
    expect(keys.map((key) => runs.get(key))).toEqual(keys.map(() => 1))
  })
})
