import { randomBytes } from 'node:crypto'
import http from 'node:http'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import express, { type Express, type Request } from 'express'
import { beforeEach, describe, expect, it } from 'vitest'
import { PawlError } from '../../../lib/index.ts'
import { expressVersions, startApp } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { hang, withRecovery } from '../../helpers/recovery.ts'
import { freshKey, request } from '../../helpers/request.ts'
import { startTap } from '../../helpers/tap.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
const { start, bury, hasten, state } = withRecovery(database)

beforeEach(() => database.pool.query('truncate pawl.executions, pawl.wakeups, pawl.steps'))

const settled = (key: string, status: string) =>
  waitFor(`${key} to be ${status}`, async () => (await state(key))?.status === status)

/** The same where it is given back, to be tried again a second later and more. */
const settledSoon = (key: string, status: string) =>
  waitFor(`${key} to be ${status}`, async () => {
    await hasten()
    return (await state(key))?.status === status
  })

/** What a handler sees of a request. */
interface Seen {
  method: string
  url: string
  baseUrl: string
  query: unknown
  body: unknown
  headers: Record<string, unknown>
  recovering: boolean
  scope: string
}

const OF_THE_CONNECTION = [
  'connection',
  'content-length',
  'transfer-encoding',
  'expect',
  'keep-alive',
]

function look(req: Request): Seen {
  const { method, originalUrl: url, baseUrl, query } = req
  // Comparing large buffers takes vitest its time.
  const body = Buffer.isBuffer(req.body) ? req.body.toString('latin1') : req.body
  const headers = Object.fromEntries(
    Object.entries(req.headers).filter(([name]) => !OF_THE_CONNECTION.includes(name)),
  )
  const { recovering, scope } = req.execution as NonNullable<typeof req.execution>
  return { method, url, baseUrl, query, body, headers, recovering, scope }
}

/**
 * Sends requests to a process that dies with them, and lets another finish them.
 * @param build mounts parsers and routes; `see` is the handler
 * @param send sends them to this URL; each has its own key
 * @returns what the handlers saw of each key, first and then in the recovery
 */
async function dieAndRecover(
  keys: readonly string[],
  build: (app: Express, see: (req: Request, res: express.Response) => unknown) => void,
  send: (url: string) => void,
  settings: Parameters<typeof start>[0] = {},
): Promise<Map<string, [Seen, Seen]>> {
  const seen = new Map<string, Seen[]>()
  const note = (req: Request) => {
    const key = req.execution?.key as string
    seen.set(key, [...(seen.get(key) ?? []), look(req)])
  }
  const { before, ...rest } = settings
  const app = (see: (req: Request, res: express.Response) => unknown) =>
    start({ ...rest, before: (app) => before?.(app), routes: (app) => build(app, see) })
  const victim = await app(note)
  send(victim.url)
  await waitFor('the handlers', () => seen.size === keys.length)
  await bury()
  const heir = await app((req, res) => {
    note(req)
    res.sendStatus(201)
  })
  for (const key of keys) await settled(key, 'done')
  await Promise.all([victim.close(), heir.close()])
  return seen as never
}

const silently = (promise: Promise<unknown>) => void promise.catch(() => {})

describe.each(expressVersions)(
  'The request that is handed to the app again, Express $version',
  ({ express }) => {
    it('is as it was: bodies of each kind, chunked, compressed, and mounted routers', async () => {
      const text = 'Grüße, 世界'
      const bytes = randomBytes(100_000)
      const json = JSON.stringify({
        text,
        n: 12345678901234567890n.toString(),
        deep: [{ a: null }],
      })
      const form = 'a=1&a=2&b=%C3%BC'
      const multipart = '--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nhello\r\n--x--\r\n'
      const bodies: [type: string | undefined, body: string | Buffer, headers?: object][] = [
        ['application/json', json],
        ['application/json', gzipSync(json), { 'Content-Encoding': 'gzip' }],
        ['application/json; charset=utf-16le', Buffer.from(json, 'utf16le')],
        ['application/x-www-form-urlencoded', form],
        ['multipart/form-data; boundary=x', multipart],
        ['application/octet-stream', bytes],
        ['text/plain; charset=latin1', Buffer.from('Grüße', 'latin1')],
        ['text/plain', ''],
        [undefined, ''],
      ]
      const keys = bodies.flatMap(() => [freshKey(), freshKey()])
      const seen = await dieAndRecover(
        keys,
        (app, see) => {
          const parsers = [
            express.json(),
            express.urlencoded({ extended: true }),
            express.text({ defaultCharset: 'utf-8' }),
            express.raw({
              type: ['application/octet-stream', 'multipart/form-data'],
              limit: '1mb',
            }),
          ]
          const router = express.Router()
          router.post('/:id', parsers, see)
          app.use('/api/v1', router)
        },
        (url) => {
          for (const [i, [type, body, headers]] of bodies.entries()) {
            const whole = Buffer.from(body as string)
            for (const chunked of [false, true]) {
              const key = keys[2 * i + Number(chunked)] as string
              const outgoing = http.request(`${url}/api/v1/7%2F8?a=1&a=2&q=%C3%BC`, {
                method: 'POST',
                headers: {
                  'Idempotency-Key': key,
                  ...(type && { 'Content-Type': type }),
                  'X-Tenant': 'ten',
                  Accept: ['text/html', 'application/json'],
                  ...(chunked
                    ? { 'Transfer-Encoding': 'chunked' }
                    : { 'Content-Length': whole.length }),
                  ...headers,
                },
              })
              outgoing.on('error', () => {})
              outgoing.write(whole.subarray(0, 10))
              outgoing.end(whole.subarray(10))
            }
          }
        },
        { express },
      )
      for (const key of keys) {
        const [first, second] = seen.get(key) as [Seen, Seen]
        expect(second).toEqual({ ...first, recovering: true })
      }
      const [plain, zipped] = [seen.get(keys[0]!)![1], seen.get(keys[2]!)![1]]
      expect(plain.body).toEqual(JSON.parse(json))
      expect(zipped.body).toEqual(JSON.parse(json))
      expect(plain).toMatchObject({ baseUrl: '/api/v1', url: '/api/v1/7%2F8?a=1&a=2&q=%C3%BC' })
      expect(seen.get(keys[10]!)![1].body === bytes.toString('latin1')).toBe(true)
    })

    it('parsed before: JSON, text and bytes come again as they were parsed', async () => {
      const json = { text: 'Grüße, 世界' }
      const bodies: [type: string, body: string | Buffer, headers?: Record<string, string>][] = [
        ['application/json', JSON.stringify(json)],
        ['application/json', gzipSync(JSON.stringify(json)), { 'Content-Encoding': 'gzip' }],
        ['application/json; charset=utf-16le', Buffer.from(JSON.stringify(json), 'utf16le')],
        ['application/vnd.api+json', JSON.stringify(json)],
        ['text/plain; charset=iso-8859-1', Buffer.from('Grüße', 'latin1')],
        ['application/octet-stream', gzipSync('bytes'), { 'Content-Encoding': 'gzip' }],
      ]
      const keys = bodies.map(freshKey)
      const seen = await dieAndRecover(
        keys,
        (app, see) => app.post('/', see),
        (url) => {
          for (const [i, [type, body, headers]] of bodies.entries()) {
            const all = { 'Content-Type': type, ...headers }
            silently(request(`${url}/`, { key: keys[i]!, body, headers: all }))
          }
        },
        {
          express,
          before: (app) =>
            app.use([
              express.json({ type: ['application/json', 'application/vnd.api+json'] }),
              express.text(),
              express.raw(),
            ]),
        },
      )
      for (const key of keys) {
        const [first, second] = seen.get(key) as [Seen, Seen]
        expect(second.body).toEqual(first.body)
      }
      expect(seen.get(keys[1]!)![1].body).toEqual(json)
      expect(seen.get(keys[4]!)![1].body).toBe('Grüße')
      expect(String(seen.get(keys[5]!)![1].body)).toBe('bytes')
    })
  },
)

describe('A request that is stored', () => {
  it('whose body arrived while the app looked up who sent it', async () => {
    const key = freshKey()
    const body = { text: 'x'.repeat(50_000) }
    const seen = await dieAndRecover(
      [key],
      (app, see) => app.post('/', express.json(), see),
      (url) => silently(request(`${url}/`, { key, body })),
      { before: (app) => app.use((_req, _res, next) => setTimeout(next, 50)) },
    )
    expect(seen.get(key)?.map((one) => one.body)).toEqual([body, body])
  })

  it('that an HTTP/1.0 client sent, without a host', async () => {
    const key = freshKey()
    const seen = await dieAndRecover(
      [key],
      (app, see) => app.post('/', express.text(), see),
      (url) => {
        const socket = connect(Number(new URL(url).port), '127.0.0.1')
        socket.on('error', () => {})
        socket.write(
          `POST / HTTP/1.0\r\nIdempotency-Key: ${key}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi`,
        )
      },
    )
    expect(seen.get(key)?.map((one) => one.body)).toEqual(['hi', 'hi'])
  })

  it.each([false, true])(
    'holds no credentials, and what it holds is encrypted if there is a key: %s',
    async (encrypted) => {
      const secret = 'S3CRET'
      const names = [
        ...['Authorization', 'Proxy-Authorization', 'Cookie', 'X-Api-Key', 'Api_Key', 'ApiKey'],
        ...['X-Auth', 'X-Access-Token', 'X-CSRF-Token', 'X-Amz-Security-Token', 'X-Session-Id'],
        ...['X-Hub-Signature-256', 'X-Password', 'X-Client-Secret', 'X-Goog-Iap-Jwt-Assertion'],
        ...['X-Amzn-Oidc-Data', 'X-Forwarded-Client-Cert', 'X-Ssl-Client-Cert', 'DPoP', 'X-OTP'],
        ...['X-Access-Key', 'X-Private-Key', 'X-Shared-Access-Key', 'Ocp-Apim-Subscription-Key'],
      ]
      const kept = {
        'X-Tenant': 'KEPT',
        'X-Author': 'KEPT',
        Traceparent: 'KEPT',
        'Accept-Language': 'KEPT',
      }
      const key = freshKey()
      const headers = { ...Object.fromEntries(names.map((name) => [name, secret])), ...kept }
      const query = `?access_token=${secret}&token=${secret}&api_key=${secret}&author=KEPT&a=1`
      const encryptionKeys = [{ id: 'k1', key: randomBytes(32) }]
      const seen = await dieAndRecover(
        [key],
        (app, see) => app.post('/', express.json(), see),
        (url) => silently(request(`${url}/${query}`, { key, headers, body: { a: 1 } })),
        { pawl: encrypted ? { encryptionKeys } : {}, route: { scope: () => 'ann' } },
      )
      const [, second] = seen.get(key) as [Seen, Seen]
      expect(second).toMatchObject({
        recovering: true,
        scope: 'ann',
        body: { a: 1 },
        query: { author: 'KEPT', a: '1' },
      })
      expect(second.headers).toMatchObject({ 'x-tenant': 'KEPT', 'x-author': 'KEPT' })
      expect(JSON.stringify(second)).not.toContain(secret)
      const { rows } = await database.pool.query(
        `select input from pawl.executions where key = $1`,
        [key],
      )
      expect(rows[0].input.includes(secret)).toBe(false)
      expect(rows[0].input.includes('KEPT')).toBe(!encrypted)
    },
  )

  it('costs no statement and no row more, and none at all on other routes', async () => {
    const counts: Record<string, number> = {}
    for (const recover of [false, true]) {
      let statements = 0
      const tap = await startTap(database.url, {
        onStatement: ({ statement, forward }) => {
          if (/pawl/.test(statement) && !/processes p|judged|regist/.test(statement.slice(0, 300)))
            statements++
          forward()
        },
      })
      const app = await start({
        url: tap.url,
        route: { recover },
        handler: async (execution, _req, res) => {
          const { rows } = await database.pool.query('select count(*)::int as n from pawl.wakeups')
          counts[`wakeups ${recover}`] = rows[0].n
          res.json(execution.attempt)
        },
      })
      await new Promise((resolve) => setTimeout(resolve, 200))
      statements = 0
      await request(`${app.url}/`, { key: freshKey() })
      counts[`statements ${recover}`] = statements
      await app.close()
      await tap.close()
    }
    expect(counts).toEqual({
      'wakeups false': 0,
      'statements false': 2,
      'wakeups true': 1,
      'statements true': 2,
    })
    expect((await database.pool.query('select from pawl.wakeups')).rows).toEqual([])
  })
})

describe('A request that cannot be stored', () => {
  const failing = async (
    before: (app: Express) => void,
    options: Parameters<typeof request>[1],
    route: object = {},
  ) => {
    const errors: unknown[] = []
    const app = await start({
      before,
      route,
      routes: (app) => {
        app.post('/', (_req, res) => res.sendStatus(201))
        app.use((error: unknown, _req: Request, res: express.Response, _next: () => void) => {
          errors.push(error)
          res.sendStatus(500)
        })
      },
    })
    const answer = await request(`${app.url}/`, { key: freshKey(), ...options })
    return { answer, errors }
  }
  const form = { 'Content-Type': 'application/x-www-form-urlencoded' }

  it.each<[string, Parameters<typeof failing>]>([
    [
      'its form is parsed already',
      [(app) => app.use(express.urlencoded()), { body: 'a=1', headers: form }],
    ],
    [
      'somebody read it, and a fingerprint option spares Pawl the body',
      [
        (app) => app.use((req, _res, next) => void req.resume().on('end', next)),
        { body: { a: 1 } },
        { fingerprint: () => 'x' },
      ],
    ],
  ])('since %s: the app is told how to mount it', async (_, args) => {
    const { answer, errors } = await failing(...args)
    expect(answer.status).toBe(500)
    expect(errors).toEqual([expect.any(PawlError)])
    expect(errors).toMatchObject([{ code: 'recovery-impossible' }])
  })

  it('since it is too large, and a fingerprint option spares Pawl the body: 413', async () => {
    const { answer, errors } = await failing(
      () => {},
      { body: 'x'.repeat(5000) },
      { fingerprint: () => 'x', maxRequestBody: 1000 },
    )
    expect([answer.status, errors]).toEqual([413, []])
  })

  it('since nobody said which app it goes to: an error at the first request', async () => {
    const errors: unknown[] = []
    const { url } = await startApp(database.url, { recover: true }, (app) => {
      app.post('/', (_req, res) => res.sendStatus(201))
      app.use((error: unknown, _req: Request, res: express.Response, _next: () => void) => {
        errors.push(error)
        res.sendStatus(500)
      })
    })
    expect((await request(`${url}/`, { key: freshKey() })).status).toBe(500)
    expect(errors).toMatchObject([{ code: 'recovery-impossible' }])
    expect(String(errors[0])).toMatch(/pawl\.recoverRequests\(app\)/)
  })
})

describe('Recovery', () => {
  it('its outcome is what the client gets later', async () => {
    const key = freshKey()
    const victim = await start({ handler: hang })
    silently(request(`${victim.url}/`, { key, body: { n: 1 } }))
    await settled(key, 'running')
    await bury()
    const heir = await start({
      handler: (execution, _req, res) =>
        res.status(202).set('X-Order', '7').json({ by: execution.attempt }),
    })
    await settled(key, 'done')
    const answer = await request(`${heir.url}/`, { key, body: { n: 1 } })
    expect([answer.status, answer.headers['x-order'], answer.json]).toEqual([202, '7', { by: 2 }])
    expect(answer.headers['idempotent-replayed']).toBe('true')
    const other = await request(`${heir.url}/`, { key, body: { n: 2 } })
    expect(other.status).toBe(422)
  })

  it('of many, by many processes and their retrying clients: each has one outcome and no two workers', async () => {
    const keys = Array.from({ length: 40 }, freshKey)
    const victim = await start({ handler: hang })
    for (const key of keys) silently(request(`${victim.url}/`, { key }))
    await waitFor('the claims', async () => {
      const { rows } = await database.pool.query('select count(*)::int as n from pawl.wakeups')
      return rows[0].n === keys.length
    })
    await bury()
    const runs = new Map<string, number>()
    const handler = async (
      execution: { key: string; attempt: number },
      _: unknown,
      res: express.Response,
    ) => {
      runs.set(execution.key, (runs.get(execution.key) ?? 0) + 1)
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 30))
      res.status(201).json({ attempt: execution.attempt })
    }
    const heirs = await Promise.all([1, 2, 3].map(() => start({ handler, route: { wait: '30s' } })))
    const answers = await Promise.all(
      keys.map((key, i) => request(`${heirs[i % 3]!.url}/`, { key })),
    )
    expect(new Set(answers.map(({ status, json }) => `${status} ${json.attempt}`))).toEqual(
      new Set(['201 2']),
    )
    expect(new Set(runs.values())).toEqual(new Set([1]))
    expect(runs.size).toBe(keys.length)
  })

  it('a handler that never answers is given up by the timeout of its route, and tried again later', async () => {
    const key = freshKey()
    let runs = 0
    const app = await start({
      route: { timeout: '200ms' },
      handler: (_execution, _req, res) => {
        if (++runs > 2) res.sendStatus(201)
      },
    })
    expect((await request(`${app.url}/`, { key })).status).toBe(504)
    await settledSoon(key, 'done')
    expect(await state(key)).toMatchObject({ attempt: 3 })
  })

  it.each<[string, (res: express.Response) => void]>([
    [
      'an event stream that never ends',
      (res) => void res.type('text/event-stream').write('data: 1\n\n'),
    ],
    ['a large body that never ends', (res) => void res.write(Buffer.alloc(5000))],
  ])('%s has its outcome, and does not keep the worker', async (_, answer) => {
    const keys = Array.from({ length: 5 }, freshKey) // More than a worker does at a time.
    const victim = await start({ handler: hang })
    for (const key of keys) silently(request(`${victim.url}/`, { key }))
    await waitFor('the claims', async () => {
      const { rows } = await database.pool.query('select count(*)::int as n from pawl.wakeups')
      return rows[0].n === keys.length
    })
    await bury()
    let closed = 0
    await start({
      route: { maxBody: 1000 },
      handler: (_execution, _req, res) => {
        res.on('close', () => closed++)
        answer(res)
      },
    })
    for (const key of keys) await settled(key, 'done')
    await waitFor('the ends', () => closed === keys.length)
  })

  it('an answer that breaks HTTP, or its connection, ends that attempt and nothing else', async () => {
    const [key, other] = [freshKey(), freshKey()]
    const runs = new Map<string, number>()
    const app = await start({
      // As with any client that is gone, the handler goes on until its time is up.
      route: { timeout: '500ms' },
      handler: (execution, req, res) => {
        const n = (runs.get(execution.key) ?? 0) + 1
        runs.set(execution.key, n)
        if (n === 1) return res.sendStatus(500)
        if (n > 2) return res.sendStatus(201)
        if (execution.key === key) return req.socket.destroy()
        return req.socket.write('no HTTP\r\n\r\n')
      },
    })
    for (const each of [key, other]) {
      expect((await request(`${app.url}/`, { key: each })).status).toBe(500)
    }
    for (const each of [key, other]) await settledSoon(each, 'done')
    expect([...runs.values()]).toEqual([3, 3])
  })

  it('an app that refuses it without credentials is told so; it is retried later and later, then parked', async () => {
    const key = freshKey()
    const warnings: string[] = []
    const logger = {
      debug() {},
      warn: (message: string, fields?: Record<string, unknown>) =>
        warnings.push(`${message} ${fields?.hint ?? ''}`),
    }
    let open = false
    const app = await start({
      pawl: { logger },
      route: { recover: { attempts: 3 } },
      before: (app) =>
        app.use((req, res, next) => {
          if (req.get('authorization') || (open && req.execution?.recovering)) next()
          else res.sendStatus(401)
        }),
      handler: (execution, _req, res) => res.sendStatus(execution.attempt === 1 ? 500 : 201),
    })
    const headers = { Authorization: 'Bearer x' }
    expect((await request(`${app.url}/`, { key, headers })).status).toBe(500)
    const dues = new Set<number>()
    await waitFor('parking', async () => {
      const { status, due_at } = await state(key)
      if (status === 'released' && due_at > new Date(1) && !dues.has(Number(due_at))) {
        dues.add(Number(due_at))
        await hasten()
      }
      return status === 'parked'
    })
    expect(dues.size).toBeGreaterThanOrEqual(2)
    expect(await state(key)).toMatchObject({ attempt: 3, due_at: Number.POSITIVE_INFINITY })
    expect(warnings).toEqual([
      expect.stringMatching(/answered before idempotency\(\) saw it.*recovering pass your auth/),
      expect.stringMatching(/answered before/),
      expect.stringMatching(/gave up on an execution.*/),
    ])
    // Somebody sees to it.
    open = true
    expect(await app.pawl.find({ key })).toMatchObject({ status: 'parked' })
    expect(await app.pawl.release({ key })).toBe(true)
    await settled(key, 'done')
    expect(await state(key)).toMatchObject({ attempt: 4, response_status: 201, due_at: null })
  })

  it('what was stored under a key that is gone is parked in the end, and nothing of it is lost', async () => {
    const key = freshKey()
    const encryptionKeys = [{ id: 'old', key: randomBytes(32) }]
    const victim = await start({ handler: hang, pawl: { encryptionKeys } })
    silently(request(`${victim.url}/`, { key }))
    await settled(key, 'running')
    await bury()
    const without = await start({
      handler: hang,
      pawl: { encryptionKeys: [{ id: 'new', key: randomBytes(32) }] },
      route: { recover: { attempts: 2 } },
    })
    await waitFor('a try', async () => (await state(key)).status === 'released')
    await without.close()
    const again = await start({
      handler: (_execution, _req, res) => res.sendStatus(201),
      pawl: { encryptionKeys },
    })
    await settled(key, 'done')
    await again.close()
  })

  it('retention deletes the wakeup and the steps with the execution', async () => {
    const key = freshKey()
    const app = await start({
      pawl: { retentionInterval: '200ms' },
      route: { retention: { unfinished: '1ms' } },
      handler: async (execution, _req, res) => {
        await execution.step('one', () => 1)
        res.sendStatus(500)
      },
    })
    expect((await request(`${app.url}/`, { key })).status).toBe(500)
    await waitFor('retention', async () => {
      const { rows } = await database.pool.query(
        `select (select count(*) from pawl.executions) + (select count(*) from pawl.wakeups)
           + (select count(*) from pawl.steps) as n`,
      )
      return Number(rows[0].n) === 0
    })
  })
})
