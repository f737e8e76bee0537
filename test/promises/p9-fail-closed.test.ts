import { describe, expect, it } from 'vitest'
import { spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, request } from '../helpers/request.ts'
import { runsByKey, withRuns } from '../helpers/runs.ts'

describe('P9 Store unreachable: fail closed', () => {
  const database = withDatabase()
  withRuns(database)

  it.each([
    ['refuses connections', 'refuse'],
    ['does not answer', 'freeze'],
  ] as const)(
    'answers 503 with Retry-After when PostgreSQL %s, runs nothing, and heals',
    async (_, fault) => {
      const proxy = await startProxy(database.url)
      const app = await spawnApp('unreachable.ts', {
        STORE_URL: proxy.url,
        DATABASE_URL: database.url,
        PAWL: JSON.stringify({ storeTimeout: '1s' }),
      })
      const url = `${app.url}/orders`
      expect((await request(url, { key: freshKey(), body: {} })).status).toBe(201)
      proxy[fault]()
      proxy[fault === 'refuse' ? 'cut' : 'freeze']()
      const keys = Array.from({ length: 10 }, freshKey)
      const refused = await Promise.all(keys.map((key) => request(url, { key, body: {} })))
      for (const answer of refused) {
        expect(answer.status).toBe(503)
        expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
        expect(answer.json.type).toBe('urn:pawl:problem:store-unavailable')
      }
      const runs = await runsByKey(database.pool)
      expect(keys.filter((key) => runs.has(key))).toEqual([])
      // What has no key needs no store.
      expect((await request(url, { body: {} })).status).toBe(201)

      proxy.restore()
      for (const key of keys) {
        const answer = await retry(url, key)
        expect(answer.status).toBe(201)
      }
      const healed = await runsByKey(database.pool)
      expect(keys.map((key) => healed.get(key))).toEqual(keys.map(() => 1))
      await app.kill()
      await proxy.close()
    },
  )

  it('runs unprotected where the app chose so', async () => {
    const proxy = await startProxy(database.url)
    const app = await spawnApp('unreachable.ts', {
      STORE_URL: proxy.url,
      DATABASE_URL: database.url,
      PAWL: JSON.stringify({ storeTimeout: '1s' }),
      ROUTE: JSON.stringify({ onStoreError: 'run' }),
    })
    proxy.refuse()
    proxy.cut()
    const key = freshKey()
    const answer = await request(`${app.url}/orders`, { key, body: {} })
    expect(answer.status).toBe(201)
    expect(answer.json.protected).toBe(false)
    await app.kill()
    await proxy.close()
  })
})

/** As a client would: again after a 503 or a 409 in progress. */
async function retry(url: string, key: string) {
  for (let tries = 1; ; tries++) {
    const answer = await request(url, { key, body: {} })
    if (tries >= 100 || (answer.status !== 503 && answer.status !== 409)) return answer
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
