import { beforeAll, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { runsByKey, withRuns } from '../helpers/runs.ts'

describe('P6 No leak', () => {
  const database = withDatabase()
  withRuns(database)
  let one: ChildApp
  let two: ChildApp
  beforeAll(async () => {
    const start = () => spawnApp('orders.ts', { DATABASE_URL: database.url })
    ;[one, two] = await Promise.all([start(), start()])
  })

  it('the same key of another tenant names another execution', async () => {
    const key = freshKey()
    const ask = (url: string, tenant: string) =>
      request(`${url}/orders`, { key, body: {}, headers: { 'X-Tenant': tenant } })
    const [alice, bob] = await Promise.all([ask(one.url, 'alice'), ask(two.url, 'bob')])
    expect(alice.status).toBe(201)
    expect(bob.status).toBe(201)
    expect(alice.body).not.toEqual(bob.body)
    expect(alice.headers['idempotent-replayed']).toBeUndefined()
    expect(bob.headers['idempotent-replayed']).toBeUndefined()
    expect((await runsByKey(database.pool)).get(key)).toBe(2)
    expect((await ask(two.url, 'alice')).body).toEqual(alice.body)
    expect((await ask(one.url, 'bob')).body).toEqual(bob.body)
  })

  it('without a scope, a key presented with other credentials reveals nothing', async () => {
    const apps = await Promise.all([
      spawnApp('unscoped.ts', { DATABASE_URL: database.url }),
      spawnApp('unscoped.ts', { DATABASE_URL: database.url }),
    ])
    const secret = 'the response of somebody else'
    const key = freshKey()
    const mine = await request(`${apps[0].url}/secrets`, {
      key,
      body: { secret },
      headers: { Authorization: 'Bearer mine' },
    })
    expect(mine.text).toContain(secret)
    const others: Record<string, string>[] = [
      { Authorization: 'Bearer theirs' },
      { Cookie: 'session=theirs' },
      {},
    ]
    for (const app of apps) {
      for (const headers of others) {
        const theirs = await request(`${app.url}/secrets`, { key, body: { secret }, headers })
        expect(theirs.status).toBe(422)
        expect(theirs.text).not.toContain(secret)
        expect(theirs.headers['x-secret']).toBeUndefined()
      }
      const again = await request(`${app.url}/secrets`, {
        key,
        body: { secret },
        headers: { Authorization: 'Bearer mine' },
      })
      expect(again.body).toEqual(mine.body)
    }
  })

  it('tenants and keys whose names run together stay apart', async () => {
    const ask = (tenant: string, key: string) =>
      request(`${one.url}/orders`, { key, body: {}, headers: { 'X-Tenant': tenant } })
    const pairs: [string, string][] = [
      ['ab', 'c'],
      ['a', 'bc'],
      ['abc', 'abc'],
      ['a:b', 'c'],
      ['a', 'b:c'],
    ]
    const answers = await Promise.all(pairs.map(([tenant, key]) => ask(tenant, key)))
    expect(new Set(answers.map((answer) => answer.json.run)).size).toBe(pairs.length)
  })
})
