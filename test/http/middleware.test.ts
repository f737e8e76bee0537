import type { Request, RequestHandler, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'

const database = withDatabase()

/** What Node keeps to itself and middleware looks at all the same. */
interface Internals {
  _header: string | null
  _implicitHeader(): void
}

/** As compression before 1.8 and express-session do: no head yet, so ask for one. */
const asksForTheHead: RequestHandler = (_req, res: Response & Partial<Internals>, next) => {
  for (const method of ['write', 'end'] as const) {
    const original = res[method] as (...args: unknown[]) => unknown
    res[method] = ((...args: unknown[]) => {
      if (!res._header) res._implicitHeader?.()
      return original.apply(res, args)
    }) as never
  }
  next()
}

describe.each(expressVersions)('Pawl among other middleware, Express $version', ({ express }) => {
  const start = async (
    handler: (req: Request, res: Response) => unknown,
    { before = [], after = [] }: { before?: RequestHandler[]; after?: RequestHandler[] },
  ) => {
    const app = await startApp(database.url, {}, () => {}, { express, mount: false })
    app.app.use(...before, idempotency(app.pawl), ...after)
    app.app.post('/', handler)
    return app.url
  }
  const places = ['before', 'after'] as const

  it.each(places)('one %s it that asks for the head itself', async (place) => {
    const pieces = await start(
      (_req, res) => {
        res.status(201).set('X-Set', 'yes')
        for (const piece of ['a', 'b', 'c']) res.write(piece)
        res.end('d')
      },
      { [place]: [asksForTheHead] },
    )
    expect(await twice(pieces)).toMatchObject({ status: 201, text: 'abcd' })
    const whole = await start((_req, res) => res.status(202).send('whole'), {
      [place]: [asksForTheHead],
    })
    expect(await twice(whole)).toMatchObject({ status: 202, text: 'whole' })
  })

  it.each(places)(
    'one %s it that removes a header: replays do not have it either',
    async (place) => {
      const hide: RequestHandler = (_req, res, next) => {
        res.removeHeader('X-Powered-By')
        next()
      }
      const url = await start((_req, res) => res.send('x'), { [place]: [hide] })
      expect((await twice(url)).headers['x-powered-by']).toBeUndefined()
      expect((await request(url)).headers['x-powered-by']).toBeUndefined()
    },
  )

  it('a parser before it that keeps the bytes of a form: they count, and its boundary does not', async () => {
    const url = await start((req, res) => res.send(`${req.body.length}`), {
      before: [express.raw({ type: '*/*' })],
    })
    const form = (boundary: string, content: string) => ({
      headers: { 'Content-Type': `multipart/form-data; boundary=${boundary}` },
      body: `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n${content}\r\n--${boundary}--\r\n`,
    })
    const key = freshKey()
    const first = await request(url, { key, ...form('aaaa', 'one') })
    expect(first.status).toBe(200)
    expect((await request(url, { key, ...form('bbbb', 'one') })).body).toEqual(first.body)
    expect((await request(url, { key, ...form('aaaa', 'two') })).status).toBe(422)
  })
})
