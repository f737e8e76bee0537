import type { ErrorRequestHandler, Request } from 'express'
import { describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'

const database = withDatabase()
const secret = 'the answer for Alice alone'

describe.each(expressVersions)('Whose key it is (P6), Express $version', ({ express }) => {
  const start = async (options: IdempotencyOptions<Request> = {}) => {
    let runs = 0
    let error: { code?: string; message?: string } = {}
    const { url } = await startApp(
      database.url,
      options,
      (app) => {
        app.post('/', (_req, res) => {
          res.set('X-Secret', secret).json({ run: ++runs, secret })
        })
        app.use(((thrown, _req, res, _next) => {
          error = thrown
          res.status(500).end()
        }) as ErrorRequestHandler)
      },
      { express },
    )
    return { url, runs: () => runs, error: () => error }
  }

  it('with a scope, the key of another tenant is another key', async () => {
    const { url } = await start({ scope: (req) => req.get('x-tenant') as string })
    const key = freshKey()
    const ask = (tenant: string) => request(url, { key, headers: { 'X-Tenant': tenant } })
    const [alice, bob] = [await ask('alice'), await ask('bob')]
    expect([alice.json.run, bob.json.run]).toEqual([1, 2])
    expect((await ask('alice')).body).toEqual(alice.body)
    expect((await ask('bob')).body).toEqual(bob.body)
  })

  it('with a scope, credentials may change between retries', async () => {
    const { url } = await start({ scope: () => 'alice' })
    const key = freshKey()
    const first = await request(url, { key, headers: { Authorization: 'Bearer old' } })
    const retry = await request(url, { key, headers: { Authorization: 'Bearer new' } })
    expect(retry.body).toEqual(first.body)
  })

  it.each([
    ['Authorization', { Authorization: 'Bearer a' }, { Authorization: 'Bearer b' }],
    ['Cookie', { Cookie: 'session=a' }, { Cookie: 'session=b' }],
    [
      'Cookie beside an empty Authorization',
      { Authorization: '', Cookie: 'session=a' },
      { Authorization: '', Cookie: 'session=b' },
    ],
    ['no credentials at all', { Authorization: 'Bearer a' }, {}],
    ['an empty Authorization', { Authorization: 'Bearer a' }, { Authorization: '' }],
  ] as [string, Record<string, string>, Record<string, string>][])(
    'without a scope, somebody else by %s gets a 422 and nothing of the answer',
    async (_, mine, theirs) => {
      const { url, runs } = await start()
      const key = freshKey()
      const first = await request(url, { key, headers: mine })
      const other = await request(url, { key, headers: theirs })
      expect(other.status).toBe(422)
      expect(other.text).not.toContain(secret)
      expect(other.headers['x-secret']).toBeUndefined()
      expect(other.json.detail).toMatch(/scope option/)
      expect((await request(url, { key, headers: mine })).body).toEqual(first.body)
      expect(runs()).toBe(1)
    },
  )

  it('a scope may be a number, zero included', async () => {
    let scope = 0
    const { url } = await start({ scope: () => scope })
    const key = freshKey()
    expect((await request(url, { key })).json.run).toBe(1)
    scope = 1
    expect((await request(url, { key })).json.run).toBe(2)
  })

  // Each is what many callers would share: whoever is not logged in, or whose id was rounded.
  it.each([Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '', undefined, null, {}, true])(
    'a scope of %s names nobody: a mistake of the app, and nothing runs',
    async (scope) => {
      const { url, runs, error } = await start({ scope: () => scope as string })
      expect((await request(url, { key: freshKey() })).status).toBe(500)
      expect(error().code).toBe('scope-invalid')
      expect(error().message).toMatch(/after authentication/)
      expect(runs()).toBe(0)
    },
  )
})
