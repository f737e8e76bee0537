import { createReadStream } from 'node:fs'
import { ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { createGzip } from 'node:zlib'
import type { Express, Request, RequestHandler, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../../lib/adapters/express.ts'
import { Pawl } from '../../../lib/index.ts'
import { expressVersions, startApp } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { freshKey } from '../../helpers/request.ts'

const database = withDatabase()
const file = fileURLToPath(new URL('../../../LICENSE', import.meta.url))

/** All bytes of the answer as they came over the wire; only the date's value is left out. */
function wire(url: string, head: string[], body = ''): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    let received = ''
    socket.setTimeout(30_000, () => reject(new Error(`No end after:\n${received}`)))
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(received.replace(/^Date: .*$/m, 'Date: …')))
    socket.write(`${[...head, 'Host: x', 'Connection: close'].join('\r\n')}\r\n\r\n${body}`)
  })
}

describe.each(expressVersions)('What Pawl leaves as it was, Express $version', ({ express }) => {
  const start = (routes: (app: Express) => void, protect: boolean) =>
    startApp(database.url, {}, routes, { express, mount: protect })

  describe('the first answer is on the wire, byte for byte, what Express sends by itself', () => {
    const ways: Record<string, (req: Request, res: Response) => unknown> = {
      json: (_, res) => res.status(201).json({ a: 1 }),
      'send of text': (_, res) => res.send('hällo'),
      'send of bytes': (_, res) => res.send(Buffer.from([0, 200, 255])),
      nothing: (_, res) => res.end(),
      204: (_, res) => res.status(204).end(),
      205: (_, res) => res.status(205).send('ignored'),
      304: (_, res) => res.status(304).send('ignored'),
      redirect: (_, res) => res.redirect('/elsewhere'),
      sendStatus: (_, res) => res.sendStatus(202),
      sendFile: (_, res) => res.sendFile(file),
      download: (_, res) => res.download(file, 'licence.txt'),
      'write and end': (_, res) => {
        res.write('a')
        res.write('')
        res.end('b')
      },
      'write of a known length': (_, res) => {
        res.writeHead(200, { 'Content-Length': 2 })
        res.write('a')
        res.end('b')
      },
      'corked writes': (_, res) => {
        res.cork()
        res.write('a')
        res.write('b')
        res.uncork()
        res.end()
      },
      'flushed headers': (_, res) => {
        res.flushHeaders()
        res.end('x')
      },
      'a reason of its own': (_, res) => res.writeHead(200, 'Fine', { 'X-A': '1' }).end(),
      'an encoding': (_, res) => res.end('ff00', 'hex'),
      'a pipe': (_, res) => Readable.from(['aa', 'bb']).pipe(res),
      'a compressed pipe': (_, res) =>
        Readable.from(['zz']).pipe(createGzip()).pipe(res.set('Content-Encoding', 'gzip')),
      cookies: (_, res) => res.cookie('a', 1).cookie('b', 2).clearCookie('c').send('x'),
      'a header removed': (_, res) => res.removeHeader('X-Powered-By') ?? res.send('x'),
      'no date': (_, res) => {
        res.sendDate = false
        res.send('x')
      },
      'a body over maxBody': (_, res) => res.send('x'.repeat(1_100_000)),
      'a pipe over maxBody': (_, res) =>
        createReadStream('/dev/zero', { end: 1_100_000 }).pipe(res),
      'an event stream': (_, res) => {
        res.type('text/event-stream').write('data: 1\n\n')
        setImmediate(() => res.end('data: 2\n\n'))
      },
      'no route': (req) => req.next?.(),
    }
    it.each(Object.entries(ways))('%s', async (_, answer) => {
      const routes = (app: Express) =>
        app.post('/', (req, res) => {
          answer(req, res)
        })
      const [bare, guarded] = [await start(routes, false), await start(routes, true)]
      for (const version of ['1.1', '1.0']) {
        const head = [
          `POST / HTTP/${version}`,
          `Idempotency-Key: ${freshKey()}`,
          'Content-Length: 0',
        ]
        expect(await wire(guarded.url, head)).toBe(await wire(bare.url, head))
      }
    })
  })

  describe('where it has nothing to do', () => {
    const key = 'Idempotency-Key: k'
    const cases: [string, string[], string?][] = [
      ['no key', ['POST / HTTP/1.1', 'Content-Length: 4'], 'body'],
      ['GET', ['GET / HTTP/1.1', key]],
      ['HEAD', ['HEAD / HTTP/1.1', key]],
      ['OPTIONS', ['OPTIONS / HTTP/1.1', key]],
      ['PUT', ['PUT / HTTP/1.1', key, 'Content-Length: 4'], 'body'],
      ['DELETE', ['DELETE / HTTP/1.1', key]],
      ['a route that skip names', ['POST /webhook HTTP/1.1', key, 'Content-Length: 4'], 'body'],
    ]
    it.each(cases)(
      'row 30: %s: request, response and bytes are as without it, and no database is asked',
      async (_, head, body) => {
        /** What somebody could see of a middleware before. */
        const traces = (req: Request, res: Response) => ({
          own: Object.getOwnPropertyNames(res).sort(),
          symbols: [...Object.getOwnPropertySymbols(req), ...Object.getOwnPropertySymbols(res)]
            .map(String)
            .sort(),
          keys: Object.getOwnPropertyNames(req).sort(),
          native: (['write', 'end', 'writeHead', 'setHeader'] as const).every(
            (name) => res[name] === ServerResponse.prototype[name],
          ),
          flowing: req.readableFlowing,
          listeners: [...req.eventNames(), ...res.eventNames()].map(String).sort(),
          headers: res.getHeaders(),
        })
        const seen: ReturnType<typeof traces>[] = []
        // Never started: whatever it asked of the database would fail.
        const pawl = new Pawl({ database: database.url })
        const guard = idempotency(pawl, { skip: (req) => req.path === '/webhook' })
        const serve = async (middleware: RequestHandler[]) => {
          const { url, app } = await start(() => {}, false)
          app.use(...middleware, (req, res) => {
            seen.push(traces(req, res))
            let text = ''
            req.on('data', (chunk) => {
              text += chunk
            })
            req.on('end', () => res.json({ method: req.method, text }))
          })
          return wire(url, head, body)
        }
        const bare = await serve([(_req, _res, next) => next()])
        expect(await serve([guard])).toBe(bare)
        expect(bare).toContain('200 OK')
        expect(seen[1]).toEqual(seen[0])
      },
    )
  })
})
