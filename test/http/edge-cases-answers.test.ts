import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Express } from 'express'
import { afterAll, describe, expect, it } from 'vitest'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, type RawResponse, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'

const database = withDatabase()
const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 7) % 256))
const folder = mkdtempSync(join(tmpdir(), 'pawl-file-'))
const file = join(folder, 'file.bin')
writeFileSync(file, bytes)
afterAll(() => rmSync(folder, { recursive: true }))

describe.each(expressVersions)('Edge cases of answers, Express $version', ({ express }) => {
  type Options = Parameters<typeof startApp>[1]
  const start = (routes: (app: Express) => void, options: Options = {}) =>
    startApp(database.url, options, routes, { express })

  /** Each way to answer, and what must come out of it, twice. */
  const ways: Record<
    string,
    {
      answer: (req: import('express').Request, res: import('express').Response) => unknown
      check: (response: RawResponse) => void
      row: string
    }
  > = {
    'end of a typed array': {
      row: '12',
      answer: (_, res) => res.end(new Uint8Array([0, 255, 128])),
      check: (r) => expect(r.body).toEqual(Buffer.from([0, 255, 128])),
    },
    sendFile: {
      row: '11',
      answer: (_, res) => res.sendFile(file),
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'a pipe': {
      row: '11',
      answer: (_, res) => {
        createReadStream(file, { highWaterMark: 100 }).pipe(res)
      },
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'stream.pipeline': {
      row: '11',
      answer: (_, res) => pipeline(createReadStream(file, { highWaterMark: 64 }), res),
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'write and end': {
      row: '11',
      answer: (_, res) => {
        res.write('one ')
        res.write(Buffer.from('two '))
        res.end('drei', 'latin1')
      },
      check: (r) => {
        expect(r.text).toBe('one two drei')
        expect(r.status).toBe(200)
      },
    },
    'writes whose callbacks are awaited': {
      row: '11',
      answer: async (_, res) => {
        for (const part of ['a', 'b', 'c']) await new Promise((done) => res.write(part, done))
        await new Promise<void>((done) => res.end(done))
      },
      check: (r) => expect(r.text).toBe('abc'),
    },
    'writeHead with headers': {
      row: '11',
      answer: (_, res) => {
        res.setHeader('X-One', 'set')
        res.writeHead(202, { 'X-One': 'given', 'X-Two': ['a', 'b'] })
        res.end('x')
      },
      check: (r) => {
        expect(r.status).toBe(202)
        expect(r.headers['x-one']).toBe('given')
        expect(r.headers['x-two']).toBe('a, b')
      },
    },
    sendStatus: {
      row: '5',
      answer: (_, res) => res.sendStatus(418),
      check: (r) => expect(r.text).toMatch(/teapot/i),
    },
  }
  it.each(Object.entries(ways).map(([name, way]) => [way.row, name, way] as const))(
    'row %s: %s is sent and replayed byte for byte, without the handler',
    async (_row, _name, way) => {
      let runs = 0
      const { url } = await start((app) => {
        app.post('/', async (req, res) => {
          runs++
          await way.answer(req, res)
        })
      })
      way.check(await twice(url))
      expect(runs).toBe(1)
    },
  )

  it('row 5: HEAD, where the route asks for it', async () => {
    let runs = 0
    const { url } = await start(
      (app) => {
        app.head('/', (_req, res) => {
          runs++
          res.set('Content-Length', '1234').end()
        })
      },
      { methods: ['HEAD'] },
    )
    const first = await twice(url, { method: 'HEAD' })
    expect(first.headers['content-length']).toBe('1234')
    expect(runs).toBe(1)
  })

  it('row 11: an event stream flows at once, its outcome committed before its first byte', async () => {
    let finish = () => {}
    let runs = 0
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        runs++
        res.writeHead(200, { 'Content-Type': 'text/event-stream' })
        res.write('data: one\n\n')
        finish = () => res.end('data: two\n\n')
      }),
    )
    const key = freshKey()
    const { hostname, port } = new URL(url)
    const events = await new Promise<http.IncomingMessage>((resolve) => {
      http
        .request({ hostname, port, method: 'POST', headers: { 'Idempotency-Key': key } }, resolve)
        .end()
    })
    const first = await new Promise((resolve) =>
      events.once('data', (chunk) => resolve(String(chunk))),
    )
    expect(first).toBe('data: one\n\n')
    const sql = 'select status, body_kept from pawl.execution_log where key = $1'
    const { rows } = await database.pool.query(sql, [key])
    expect(rows[0]).toEqual({ status: 'done', body_kept: false })
    finish()
    const rest = await new Promise((resolve) =>
      events.once('data', (chunk) => resolve(String(chunk))),
    )
    expect(rest).toBe('data: two\n\n')
    const replay = await request(url, { key })
    expect(replay.json.type).toBe('urn:pawl:problem:body-not-kept')
    expect(runs).toBe(1)
  })

  it('row 31: early hints and 100-continue pass, and are not stored', async () => {
    const { url } = await start((app) =>
      app.post('/', (req, res) => {
        res.writeEarlyHints({ link: '</style.css>; rel=preload' })
        let size = 0
        req.on('data', (chunk) => {
          size += chunk.length
        })
        req.on('end', () => res.json({ size }))
      }),
    )
    const key = freshKey()
    const { hostname, port } = new URL(url)
    const seen: string[] = []
    const text = await new Promise<string>((resolve, reject) => {
      const outgoing = http.request({
        hostname,
        port,
        method: 'POST',
        headers: { 'Idempotency-Key': key, Expect: '100-continue', 'Content-Length': 4 },
      })
      outgoing.on('continue', () => {
        seen.push('continue')
        outgoing.end('body')
      })
      outgoing.on('information', (info) => seen.push(String(info.statusCode)))
      outgoing.on('response', async (response) =>
        resolve(Buffer.concat(await response.toArray()).toString()),
      )
      outgoing.on('error', reject)
      outgoing.flushHeaders()
    })
    expect(text).toBe('{"size":4}')
    expect(seen).toContain('continue')
    expect(seen).toContain('103')
  })

  it('row 31: trailers pass', async () => {
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        res.setHeader('Trailer', 'X-Sum')
        res.write('body')
        res.addTrailers({ 'X-Sum': '42' })
        res.end()
      }),
    )
    const { hostname, port } = new URL(url)
    const response = await new Promise<http.IncomingMessage>((resolve) => {
      http
        .request(
          { hostname, port, method: 'POST', headers: { 'Idempotency-Key': freshKey() } },
          resolve,
        )
        .end()
    })
    await response.toArray()
    expect(response.trailers).toEqual({ 'x-sum': '42' })
  })
})
