import { describe, expect, it } from 'vitest'
import { executionId } from '../../lib/engine/execution-id.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()

/** draft-ietf-httpapi-idempotency-key-header-07, by the numbers of the checklist in docs/edge-cases.md. */
describe('The IETF draft', () => {
  let runs = 0
  let answer: (() => void) | undefined
  const start = (options: Parameters<typeof startApp>[1] = {}) =>
    startApp(
      database.url,
      { scope: (req) => req.get('x-user') ?? 'nobody', ...options },
      (app, express) => {
        app.use(express.json())
        app.post('/slow', (_req, res) => {
          runs++
          answer = () => res.json({ slow: true })
        })
        app.post('/{*path}', (req, res) => {
          runs++
          res.status(req.body?.fail ? 400 : 201).json({ run: runs })
        })
      },
    )
  const problem = (code: string) => `urn:pawl:problem:${code}`

  it('1: the value is a structured-field string whose parameters are ignored', async () => {
    const { url } = await start()
    const key = freshKey()
    const first = await request(url, { key: `"${key} \\"x\\" \\\\"` })
    const second = await request(url, { key: `"${key} \\"x\\" \\\\"; a=1; b` })
    expect(second.body).toEqual(first.body)
    const { rows } = await database.pool.query('select id from pawl.executions where key = $1', [
      `${key} "x" \\`,
    ])
    expect(rows[0].id).toBe(executionId('nobody', `${key} "x" \\`))
  })

  it('2: what is no string is a 400 that names the rule; strict refuses the bare token as well', async () => {
    const { url } = await start()
    const strict = await start({ strict: true })
    const before = runs
    for (const key of ['"open', '42', '"a", "b"', '(a)', '?0', 'späth']) {
      const refused = await request(url, { key: Buffer.from(key).toString('latin1') })
      expect(refused.status).toBe(400)
      expect(refused.json.type).toBe(problem('key-malformed'))
      expect(refused.json.detail).toMatch(/must/)
    }
    const twoLines = await request(url, { headers: { 'Idempotency-Key': ['"a"', '"b"'] } })
    expect(twoLines.json.type).toBe(problem('key-malformed'))
    expect((await request(strict.url, { key: 'bare' })).json.detail).toMatch(/double quotes/)
    expect(runs).toBe(before)
    expect((await request(strict.url, { key: `"${freshKey()}"` })).status).toBe(201)
  })

  it('3: missing where it is required is a 400 problem', async () => {
    const { url } = await start({ required: true })
    const refused = await request(url)
    expect(refused.status).toBe(400)
    expect(refused.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(refused.json).toEqual({
      type: problem('key-missing'),
      title: 'An idempotency key is required',
      status: 400,
      detail: expect.stringMatching(/Idempotency-Key header.*UUID/),
      instance: expect.stringMatching(/^urn:uuid:/),
    })
  })

  it('4: missing where it is optional is processed as ever', async () => {
    const { url } = await start()
    expect((await request(url)).status).toBe(201)
  })

  it('5: another payload is a 422, during processing a 409, both a 422', async () => {
    const { url } = await start({ wait: 0 })
    const key = freshKey()
    const first = request(`${url}/slow`, { key, body: { a: 1 } })
    await waitFor('the handler', () => answer)
    const during = await request(`${url}/slow`, { key, body: { a: 1 } })
    expect(during.status).toBe(409)
    expect(during.json.type).toBe(problem('in-progress'))
    expect(during.headers['retry-after']).toBe('1')
    const both = await request(`${url}/slow`, { key, body: { a: 2 } })
    expect(both.status).toBe(422)
    answer?.()
    await first
    const after = await request(`${url}/slow`, { key, body: { a: 2 } })
    expect(after.json.type).toBe(problem('request-mismatch'))
  })

  it('6: a retry after completion gets the same result, success or error', async () => {
    const { url } = await start()
    for (const body of [{}, { fail: true }]) {
      const key = freshKey()
      const first = await request(url, { key, body })
      const again = await request(url, { key, body })
      expect([again.status, again.text]).toEqual([first.status, first.text])
    }
  })

  it('7: the format is checked before any look-up', async () => {
    const { url, pawl } = await start()
    await pawl.stop() // There is nothing to look up any more.
    expect((await request(url, { key: '"open' })).status).toBe(400)
  })

  it('8: two principals with one key never cross', async () => {
    const { url } = await start()
    const key = freshKey()
    const ask = (user: string) => request(url, { key, headers: { 'X-User': user } })
    const [alice, bob] = [await ask('alice'), await ask('bob')]
    expect(alice.json.run).not.toBe(bob.json.run)
    expect((await ask('alice')).json).toEqual(alice.json)
  })

  it('9: types are stable, and each says whether to retry', async () => {
    const { url, pawl } = await start()
    await pawl.stop()
    const refused = await request(url, { key: freshKey() })
    expect(refused.status).toBe(503)
    expect(refused.headers['retry-after']).toBe('2')
    expect(refused.headers.connection).toBe('close')
    expect(refused.json.type).toBe(problem('store-unavailable'))
  })
})
