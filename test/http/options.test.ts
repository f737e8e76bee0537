import type { Express, Request, RequestHandler } from 'express'
import { describe, expect, it } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()

describe.each(expressVersions)('What options do, Express $version', ({ express }) => {
  const start = (options: IdempotencyOptions<Request>, routes: (app: Express) => void) =>
    startApp(database.url, options, routes, { express })
  /** Answers how often it ran. */
  const counting = (): RequestHandler => {
    let runs = 0
    return (_req, res) => {
      res.json({ run: ++runs })
    }
  }

  it('scope: an empty or missing one is a mistake of the app, and runs nothing', async () => {
    for (const scope of [() => '', () => undefined, () => 'a\0b', () => 'x'.repeat(1025)]) {
      let message = ''
      const { url } = await start({ scope: scope as () => string }, (app) => {
        app.post('/', counting())
        app.use(((error, _req, res, _next) => {
          message = `${error.code}: ${error.message}`
          res.status(500).end()
        }) as import('express').ErrorRequestHandler)
      })
      expect((await request(url, { key: freshKey() })).status).toBe(500)
      expect(message).toMatch(/^scope-invalid: .*after authentication/)
    }
  })

  it('key: another header, or a function of the request', async () => {
    const header = await start({ key: 'PayPal-Request-Id', required: true }, (app) => {
      app.post('/', counting())
    })
    const key = freshKey()
    const ask = () => request(header.url, { headers: { 'PayPal-Request-Id': key } })
    expect((await ask()).body).toEqual((await ask()).body)
    const missing = await request(header.url, { key })
    expect(missing.json.detail).toContain('the PayPal-Request-Id header')

    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.app.use(express.json(), idempotency(app.pawl, { key: (req) => req.body?.id }))
    app.app.post('/', counting())
    const id = `Schlüssel ${freshKey()}`
    const first = await request(app.url, { body: { id } })
    expect((await request(app.url, { body: { id } })).body).toEqual(first.body)
    expect((await request(app.url, { body: { id: 7 } })).json.detail).toContain('must be a string')
    expect((await request(app.url, { body: {} })).json.run).toBe(2)
  })

  it('key: one that is not in the header lines, as serverless adapters and middleware give it', async () => {
    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.app.use((req, _res, next) => {
      req.headers['idempotency-key'] = req.get('x-amzn-key')
      next()
    }, idempotency(app.pawl))
    app.app.post('/', counting())
    const key = freshKey()
    const ask = (given: string) => request(app.url, { headers: { 'X-Amzn-Key': given } })
    expect((await ask(key)).json.run).toBe(1)
    expect((await ask(key)).headers['idempotent-replayed']).toBe('true')
    expect((await ask('"open')).status).toBe(400)
    expect((await request(app.url)).json.run).toBe(2)
  })

  it('required: asks for a key only where one counts', async () => {
    const { url } = await start(
      { required: true, skip: (req) => req.path === '/webhook' },
      (app) => {
        app.use(counting())
      },
    )
    expect((await request(url)).status).toBe(400)
    expect((await request(`${url}/webhook`)).status).toBe(200)
    expect((await request(url, { method: 'GET' })).status).toBe(200)
    expect((await request(url, { key: freshKey() })).status).toBe(200)
  })

  it('methods: those and no others', async () => {
    const { url } = await start({ methods: ['delete'] }, (app) => {
      app.all('/', counting())
    })
    const key = freshKey()
    const runs = []
    for (const method of ['DELETE', 'DELETE', 'POST', 'POST']) {
      runs.push((await request(url, { key, method })).json.run)
    }
    expect(runs).toEqual([1, 1, 2, 3])
  })

  it('fingerprint: what it returns is all that counts, and the body is left unread', async () => {
    const { url } = await start({ fingerprint: (req) => req.get('x-amount') ?? null }, (app) => {
      app.post('/', (req, res) => {
        req.resume().on('end', () => res.json({ complete: req.complete }))
      })
    })
    const key = freshKey()
    const ask = (amount: string, body: string) =>
      request(url, { key, body, headers: { 'X-Amount': amount } })
    expect((await ask('5', 'one')).json).toEqual({ complete: true })
    expect((await ask('5', 'two')).headers['idempotent-replayed']).toBe('true')
    expect((await ask('6', 'one')).status).toBe(422)
  })

  it('wait: a duplicate gets the answer of the first when it comes in time, else 409', async () => {
    let answer = () => {}
    const routes = (app: Express) =>
      app.post('/', (req, res) => {
        answer = () => res.json({})
        if (req.query.soon) setTimeout(answer, 200)
      })
    const patient = await start({ wait: '20s' }, routes)
    const key = freshKey()
    const both = await Promise.all([1, 2].map(() => request(`${patient.url}?soon=1`, { key })))
    expect(both.map((answer) => answer.status)).toEqual([200, 200])
    const hasty = await start({ wait: 50 }, routes)
    const other = freshKey()
    const two = [1, 2].map(() => request(hasty.url, { key: other }))
    expect((await Promise.race(two)).status).toBe(409)
    answer()
    const answers = await Promise.all(two)
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  })

  it('storedHeaders: a list, or a function of the name', async () => {
    const routes = (app: Express) =>
      app.post('/', (_req, res) => {
        res.set({ 'X-A': '1', 'X-B': '2' }).send('x')
      })
    const replay = async (storedHeaders: IdempotencyOptions['storedHeaders']) => {
      const { url } = await start({ storedHeaders: storedHeaders ?? [] }, routes)
      const key = freshKey()
      await request(url, { key })
      const { headers } = await request(url, { key })
      return [headers['x-a'], headers['x-b']]
    }
    expect(await replay(['x-a'])).toEqual(['1', undefined])
    expect(await replay((name) => name === 'x-b')).toEqual([undefined, '2'])
  })

  it('maxRequestBody: a larger body is a 413, announced or not, and runs nothing', async () => {
    let runs = 0
    const { url } = await start({ maxRequestBody: 1000 }, (app) => {
      app.post('/', (_req, res) => {
        runs++
        res.end()
      })
    })
    const body = 'x'.repeat(1001)
    const announced = await request(url, { key: freshKey(), body })
    expect(announced.status).toBe(413)
    expect(announced.json.type).toBe('urn:pawl:problem:body-too-large')
    const headers = { 'Transfer-Encoding': 'chunked' }
    expect((await request(url, { key: freshKey(), body, headers })).status).toBe(413)
    expect(runs).toBe(0)
    expect((await request(url, { key: freshKey(), body: 'x'.repeat(1000) })).status).toBe(200)
    expect((await request(url, { body })).status).toBe(200)
  })

  it('a body that was read and left no trace is a mistake of the app, never an empty fingerprint', async () => {
    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    let code = ''
    app.app.use((req, _res, next) => {
      req.resume().on('end', () => next())
    }, idempotency(app.pawl))
    app.app.post('/', counting())
    app.app.use(((error, _req, res, _next) => {
      code = error.code
      res.status(500).end()
    }) as import('express').ErrorRequestHandler)
    expect((await request(app.url, { key: freshKey(), body: 'x' })).status).toBe(500)
    expect(code).toBe('body-unreadable')
  })

  it('mounted twice, the first that finds a key handles the request', async () => {
    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.app.use(idempotency(app.pawl))
    app.app.post('/', idempotency(app.pawl, { required: true }), counting())
    const key = freshKey()
    const first = await request(app.url, { key })
    expect(first.json).toEqual({ run: 1 })
    expect((await request(app.url, { key })).body).toEqual(first.body)
    expect((await request(app.url)).json.type).toBe('urn:pawl:problem:key-missing')
  })

  it('a req.execution of the app itself does not switch protection off', async () => {
    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.app.use((req, _res, next) => {
      Object.assign(req, { execution: { my: 'own' } })
      next()
    }, idempotency(app.pawl))
    app.app.post('/', counting())
    const key = freshKey()
    expect((await request(app.url, { key })).json).toEqual({ run: 1 })
    expect((await request(app.url, { key })).json).toEqual({ run: 1 })
  })

  it('an execution tells the handler who it is, and aborts when its time is up', async () => {
    let aborted = false
    const { url } = await start({ scope: () => 'me', timeout: 100 }, (app) => {
      app.post('/fast', (req, res) => {
        res.json({ ...req.execution, abortSignal: undefined })
      })
      app.post('/slow', (req) => {
        req.execution?.abortSignal.addEventListener('abort', () => {
          aborted = true
        })
      })
    })
    const key = freshKey()
    expect((await request(`${url}/fast`, { key })).json).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      scope: 'me',
      key,
      attempt: 1,
      recovering: false,
    })
    await request(`${url}/slow`, { key: freshKey() })
    await waitFor('the signal', () => aborted)
  })

  describe('CORS', () => {
    const startCors = (options: IdempotencyOptions<Request> = {}) =>
      startApp(database.url, {}, () => {}, { express, mount: false }).then((app) => {
        app.app.use((req, res, next) => {
          res.set('Access-Control-Allow-Origin', req.get('origin') ?? '*').vary('Origin')
          res.set('Access-Control-Expose-Headers', 'X-Total, retry-after')
          next()
        })
        app.app.use(idempotency(app.pawl, options))
        app.app.post('/', counting())
        return app
      })

    it('lists the replay marker and Retry-After, beside what the app lists', async () => {
      const { url } = await startCors()
      const key = freshKey()
      const headers = { Origin: 'https://a.example' }
      const first = await request(url, { key, headers })
      expect(first.headers['access-control-expose-headers']).toBe('X-Total, retry-after')
      const replay = await request(url, { key, headers })
      expect(replay.headers['access-control-expose-headers']).toBe(
        'X-Total, retry-after, Idempotent-Replayed',
      )
      const refused = await request(url, { key: '"open', headers })
      expect(refused.headers['access-control-expose-headers']).toContain('Idempotent-Replayed')
    })

    it('a replay is for the origin that asks, not for the one that asked first', async () => {
      const { url } = await startCors()
      const key = freshKey()
      const ask = (origin: string) => request(url, { key, headers: { Origin: origin } })
      const one = await ask('https://a.example')
      const two = await ask('https://b.example')
      expect(two.body).toEqual(one.body)
      expect(one.headers['access-control-allow-origin']).toBe('https://a.example')
      expect(two.headers['access-control-allow-origin']).toBe('https://b.example')
    })

    it('without CORS nothing is listed', async () => {
      const { url } = await start({}, (app) => {
        app.post('/', counting())
      })
      const key = freshKey()
      await request(url, { key })
      const replay = await request(url, { key })
      expect(replay.headers['access-control-expose-headers']).toBeUndefined()
    })
  })
})
