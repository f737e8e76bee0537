import type { ErrorRequestHandler, Request } from 'express'
import { describe, expect, it } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'

const database = withDatabase()

describe.each(expressVersions)('Options that are functions, Express $version', ({ express }) => {
  /** The app parses JSON before the middleware. */
  const start = async (options: IdempotencyOptions<Request>) => {
    let runs = 0
    let error: { code?: string; message?: string } = {}
    const { url, app, pawl } = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.use(express.json(), idempotency(pawl, options))
    app.post('/', (_req, res) => {
      res.set({ 'X-A': '1', 'X-B': '2' }).json({ run: ++runs })
    })
    app.use(((thrown, _req, res, _next) => {
      error = thrown
      res.status(500).end()
    }) as ErrorRequestHandler)
    return { url, runs: () => runs, error: () => error }
  }

  describe.each(['scope', 'key', 'skip', 'fingerprint'])('%s', (name) => {
    // A promise is truthy and looks like {}: skip would skip everything, and every fingerprint be the same.
    it.each([
      ['resolves', async () => 'x'],
      ['rejects', async () => Promise.reject(new Error('nobody listens'))],
    ])('that returns a promise (which %s) is a mistake of the app', async (_, option) => {
      const { url, runs, error } = await start({ [name]: option })
      expect((await request(url, { key: freshKey() })).status).toBe(500)
      expect(error().code).toBe('invalid-option')
      expect(error().message).toMatch(new RegExp(`"${name}" returned a promise`))
      expect(runs()).toBe(0)
    })

    it('that throws hands its error to the app', async () => {
      const own = new Error('my own')
      const { url, runs, error } = await start({
        [name]: () => {
          throw own
        },
      })
      expect((await request(url, { key: freshKey() })).status).toBe(500)
      expect(error()).toBe(own)
      expect(runs()).toBe(0)
    })
  })

  it.each([undefined, new Map(), new URLSearchParams('a=1'), new Set(), 7n, () => 1, Symbol('x')])(
    'a fingerprint of %s is a mistake of the app, since another would look the same',
    async (value) => {
      const { url, runs, error } = await start({ fingerprint: () => value })
      expect((await request(url, { key: freshKey() })).status).toBe(500)
      expect(error().code).toBe('fingerprint-invalid')
      expect(runs()).toBe(0)
    },
  )

  it.each(['the text itself', 'a member'])(
    'row 27: a lone surrogate of the client in a fingerprint (%s) is a 400',
    async (where) => {
      const { url, runs } = await start({
        fingerprint: (req) => (where === 'a member' ? { text: req.body.text } : req.body.text),
      })
      const refused = await request(url, {
        key: freshKey(),
        body: '{"text":"\\ud800"}',
        headers: { 'Content-Type': 'application/json' },
      })
      expect(refused.status).toBe(400)
      expect(refused.json.type).toBe('urn:pawl:problem:body-unreadable')
      expect(runs()).toBe(0)
    },
  )

  it('storedHeaders that throws costs a header, not the outcome', async () => {
    const { url } = await start({
      storedHeaders: (name) => {
        if (name === 'x-a') throw new Error('not this one')
        return true
      },
    })
    const key = freshKey()
    const first = await request(url, { key })
    expect(first.status).toBe(200)
    const replay = await request(url, { key })
    expect(replay.body).toEqual(first.body)
    expect([replay.headers['x-a'], replay.headers['x-b']]).toEqual([undefined, '2'])
  })

  it('a fingerprint of null, bytes or members without a value is one', async () => {
    for (const value of [null, 0, '', Buffer.of(255), { a: undefined }, Object.create(null)]) {
      const { url } = await start({ fingerprint: () => value })
      await twice(url)
    }
  })
})
