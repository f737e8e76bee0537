import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Express } from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()

describe.each(expressVersions)(
  'Edge cases of how handlers end, Express $version',
  ({ version, express }) => {
    type Options = Parameters<typeof startApp>[1]
    const start = (routes: (app: Express) => void, options: Options = {}) =>
      startApp(database.url, options, routes, { express })

    it.each(['pipe', 'pipeline'])(
      'row 14: a client that hangs up in the middle of a %s',
      async (how) => {
        let begun = false
        const { url } = await start((app) =>
          app.post('/', (_req, res) => {
            const slow = Readable.from(
              (async function* () {
                for (let i = 0; i < 5; i++) {
                  yield Buffer.from(`part ${i} `)
                  begun = true
                  await new Promise((resolve) => setTimeout(resolve, 40))
                }
              })(),
            )
            if (how === 'pipe') slow.pipe(res)
            else pipeline(slow, res).catch(() => {})
          }),
        )
        const key = freshKey()
        const client = new AbortController()
        const first = request(url, { key, signal: client.signal })
        await waitFor('the first part', () => begun)
        client.abort()
        await expect(first).rejects.toThrow()
        expect((await request(url, { key })).text).toBe('part 0 part 1 part 2 part 3 part 4 ')
      },
    )

    it('row 29: a response that an earlier middleware has sent passes through', async () => {
      const { url } = await startApp(database.url, {}, () => {}, { express, mount: false }).then(
        async (started) => {
          started.app.use((_req, res, next) => {
            res.send('early')
            next()
          })
          started.app.use(idempotency(started.pawl))
          started.app.post('/', () => {})
          return started
        },
      )
      const key = freshKey()
      expect((await request(url, { key })).text).toBe('early')
      const { rows } = await database.pool.query('select 1 from pawl.executions where key = $1', [
        key,
      ])
      expect(rows).toEqual([])
    })

    it('row 29: of two answers the first wins, and the second fails as it would in Node', async () => {
      let code: unknown
      const { url } = await start((app) =>
        app.post('/', (_req, res) => {
          res.json({ answer: 1 })
          try {
            res.json({ answer: 2 })
          } catch (error) {
            code = (error as { code: string }).code
          }
        }),
      )
      expect((await twice(url)).json).toEqual({ answer: 1 })
      expect(code).toBe('ERR_HTTP_HEADERS_SENT')
    })

    const failures: [
      string,
      (req: unknown, res: unknown, next: (error: unknown) => void) => unknown,
    ][] = [
      [
        'throws',
        () => {
          throw new Error('boom')
        },
      ],
      ['calls next(error)', (_req, _res, next) => next(new Error('boom'))],
      // Express 4 does not look at promises: the app's own wrapper does.
      [
        'rejects',
        version === 5
          ? async () => {
              throw new Error('boom')
            }
          : (_req, _res, next) => Promise.reject(new Error('boom')).catch(next),
      ],
    ]
    it.each(failures)(
      'row 32: a handler that %s: its 500 is stored and replayed',
      async (_, handler) => {
        let runs = 0
        const { url } = await start((app) => {
          app.post('/', (req, res, next) => {
            runs++
            return handler(req, res, next)
          })
          app.use(((_error, _req, res, _next) => {
            res.status(500).json({ run: runs })
          }) as import('express').ErrorRequestHandler)
        })
        expect((await twice(url)).json).toEqual({ run: 1 })
        expect(runs).toBe(1)
      },
    )

    it('row 32: a handler that throws after it answered does not take the answer away', async () => {
      const { url } = await start((app) =>
        app.post('/', (_req, res) => {
          res.status(201).send('answered')
          throw new Error('too late')
        }),
      )
      expect((await twice(url)).text).toBe('answered')
    })
  },
)
