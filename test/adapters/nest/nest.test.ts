import {
  BadGatewayException,
  Body,
  type CanActivate,
  Catch,
  ConflictException,
  Controller,
  Delete,
  type ExceptionFilter,
  type ExecutionContext,
  Header,
  HttpCode,
  type INestApplication,
  Module,
  type ModuleMetadata,
  type NestInterceptor,
  ParseIntPipe,
  Post,
  Put,
  Redirect,
  Req,
  Res,
  StreamableFile,
  UnauthorizedException,
  UseFilters,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ExpressAdapter } from '@nestjs/platform-express'
import { FastifyAdapter } from '@nestjs/platform-fastify'
import { map, tap } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import {
  CurrentExecution,
  IdempotencyModule,
  Idempotent,
  type NestIdempotencyOptions,
  type NestRequest,
} from '../../../lib/adapters/nest/nest.ts'
import { type Execution, Pawl } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { decorate } from '../../helpers/decorate.ts'
import { freshKey, request } from '../../helpers/request.ts'
import { twice } from '../../helpers/twice.ts'

const database = withDatabase()
const open: { nest?: INestApplication; pawl: Pawl }[] = []

afterEach(async () => {
  for (const { nest, pawl } of open.splice(0)) {
    await nest?.close()
    await pawl.stop()
  }
})

const platforms = [
  { platform: 'Express', adapter: () => new ExpressAdapter() },
  { platform: 'Fastify', adapter: () => new FastifyAdapter({ forceCloseConnections: true }) },
]

interface Signed extends NestRequest {
  user?: { id: string }
}

/** What both platforms' responses have. */
interface Out {
  status(code: number): Out
  send(body: unknown): unknown
}

describe.each(platforms)('NestJS on $platform', ({ adapter }) => {
  const newPawl = () => {
    const pawl = new Pawl({ database: database.apps, logger: silent, drainTimeout: 0 })
    open.push({ pawl })
    return pawl
  }
  const start = async (
    controller: new () => unknown,
    options: Omit<NestIdempotencyOptions<Signed>, 'pawl'> = {},
    more: ModuleMetadata = {},
    settings = {},
  ) => {
    const pawl = newPawl()
    class Root {}
    const imports = [...(more.imports ?? [IdempotencyModule.forRoot({ pawl, ...options })])]
    decorate(Root, [Module({ ...more, imports, controllers: [controller] })])
    const nest = await NestFactory.create(Root, adapter(), { logger: false, ...settings })
    open.push({ nest, pawl })
    await nest.listen(0, '127.0.0.1')
    return { url: await nest.getUrl(), nest, pawl }
  }

  it('each way to answer is sent and replayed byte for byte', async () => {
    let runs = 0
    class Ways {
      object() {
        return { run: ++runs }
      }
      text() {
        return `run ${++runs}`
      }
      nothing() {
        runs++
      }
      file() {
        runs++
        return new StreamableFile(Buffer.from([0, 255, 1]), { type: 'application/x' })
      }
      elsewhere() {
        return { url: `/orders/${++runs}` }
      }
      own(out: Out) {
        out.status(203).send({ run: ++runs })
      }
      conflict() {
        throw new ConflictException(`run ${++runs}`)
      }
      failure() {
        throw new BadGatewayException(`run ${++runs}`)
      }
    }
    decorate(Ways, [Controller()], {
      object: { on: [Post('object')] },
      text: { on: [Post('text'), HttpCode(202), Header('X-One', '1')] },
      nothing: { on: [Post('nothing'), HttpCode(204)] },
      file: { on: [Post('file')] },
      elsewhere: { on: [Post('elsewhere'), Redirect('/', 303)] },
      own: { on: [Post('own')], parameters: [Res()] },
      conflict: { on: [Post('conflict')] },
      failure: { on: [Post('failure')] },
    })
    const { url } = await start(Ways)
    const statuses = {
      object: 201,
      text: 202,
      nothing: 204,
      file: 201,
      elsewhere: 303,
      own: 203,
      conflict: 409,
      failure: 502,
    }
    for (const [path, status] of Object.entries(statuses)) {
      const before = runs
      const bare = await request(`${url}/${path}`)
      const first = await twice(`${url}/${path}`)
      expect([path, first.status, bare.status]).toEqual([path, status, status])
      expect(first.headers['content-type']).toBe(bare.headers['content-type'])
      expect([path, runs]).toEqual([path, before + 2])
    }
  })

  it('guards come first: the scope is who they let in, and what they refuse is not stored', async () => {
    const guard: CanActivate = {
      canActivate(context: ExecutionContext) {
        const signed = context.switchToHttp().getRequest<Signed>()
        const { authorization } = signed.headers
        if (!authorization) throw new UnauthorizedException()
        signed.user = { id: String(authorization) }
        return true
      },
    }
    class Orders {
      create(execution: Execution) {
        return { scope: execution.scope, at: Math.random() }
      }
    }
    decorate(Orders, [Controller(), UseGuards(guard)], {
      create: { on: [Post()], parameters: [CurrentExecution()] },
    })
    const { url } = await start(Orders, { scope: ({ user }) => user?.id ?? '' })
    const key = freshKey()
    expect((await request(url, { key })).status).toBe(401)
    const ask = (user: string) => request(url, { key, headers: { Authorization: user } })
    const [alice, bob] = [await ask('alice'), await ask('bob')]
    expect([alice.json.scope, bob.json.scope]).toEqual(['alice', 'bob'])
    expect((await ask('alice')).json).toEqual(alice.json)
  })

  it('pipes, filters and interceptors are part of the answer', async () => {
    let runs = 0
    let seen = 0
    class Teapot implements ExceptionFilter {
      catch(error: Error, host: { switchToHttp(): { getResponse(): Out } }) {
        host.switchToHttp().getResponse().status(418).send({ because: error.message })
      }
    }
    decorate(Teapot, [Catch(TypeError)])
    const wrap: NestInterceptor = {
      intercept: (_, next) =>
        next.handle().pipe(
          map((data) => ({ data })),
          tap(() => void seen++),
        ),
    }
    class Orders {
      create(amount: number) {
        runs++
        if (amount === 0) throw new TypeError('nothing to do')
        return { amount, run: runs }
      }
    }
    decorate(Orders, [Controller(), UseInterceptors(wrap), UseFilters(new Teapot())], {
      create: { on: [Post()], parameters: [Body('amount', ParseIntPipe)] },
    })
    const { url } = await start(Orders)
    const wrapped = await twice(url, { body: { amount: 5 } })
    expect(wrapped.json).toEqual({ data: { amount: 5, run: 1 } })
    expect(seen).toBe(1)
    expect((await twice(url, { body: { amount: 0 } })).json).toEqual({ because: 'nothing to do' })
    expect((await twice(url, { body: { amount: 'x' } })).status).toBe(400)
    expect(runs).toBe(2)
  })

  it('a route or a controller has options of its own, or is not protected', async () => {
    class Orders {
      usual() {
        return { at: Math.random() }
      }
      put() {
        return { at: Math.random() }
      }
      free() {
        return { at: Math.random() }
      }
    }
    decorate(Orders, [Controller(), Idempotent({ required: true })], {
      usual: { on: [Post('usual')] },
      put: { on: [Put('put'), Idempotent({ methods: ['PUT'], strict: true })] },
      free: { on: [Post('free'), Idempotent(false)] },
    })
    const { url } = await start(Orders)
    const key = freshKey()
    expect((await request(`${url}/usual`)).json.type).toBe('urn:pawl:problem:key-missing')
    const put = { method: 'PUT' }
    expect((await request(`${url}/put`, put)).json.type).toBe('urn:pawl:problem:key-missing')
    expect((await request(`${url}/put`, { ...put, key })).json.type).toBe(
      'urn:pawl:problem:key-malformed',
    )
    const quoted = { ...put, key: `"${key}"` }
    const first = await request(`${url}/put`, quoted)
    expect((await request(`${url}/put`, quoted)).json).toEqual(first.json)
    const [one, two] = [
      await request(`${url}/free`, { key }),
      await request(`${url}/free`, { key }),
    ]
    expect(one.json).not.toEqual(two.json)
  })

  it('what is not keyed passes untouched', async () => {
    class Orders {
      create(request: Signed) {
        return { execution: request.execution ?? null, at: Math.random() }
      }
      remove(execution: Execution | undefined) {
        return { execution: execution ?? null }
      }
    }
    decorate(Orders, [Controller()], {
      create: { on: [Post()], parameters: [Req()] },
      remove: { on: [Delete()], parameters: [CurrentExecution()] },
    })
    const { url } = await start(Orders)
    const [one, two] = [await request(url), await request(url)]
    expect(one.json.execution).toBeNull()
    expect(one.json).not.toEqual(two.json)
    const removed = await request(url, { method: 'DELETE', key: freshKey() })
    expect(removed.json).toEqual({ execution: null })
  })

  it('with rawBody the bytes of the body count, without it what was parsed', async () => {
    class Orders {
      create(body: unknown) {
        return { body, at: Math.random() }
      }
    }
    decorate(Orders, [Controller()], { create: { on: [Post()], parameters: [Body()] } })
    const headers = { 'Content-Type': 'application/json' }
    for (const rawBody of [true, false]) {
      const { url } = await start(Orders, {}, {}, { rawBody })
      const key = freshKey()
      const first = await request(url, { key, headers, body: '{"a":1,"b":2}' })
      expect(first.json.body).toEqual({ a: 1, b: 2 })
      const other = await request(url, { key, headers, body: '{"b":2, "a":1}' })
      expect(other.status).toBe(rawBody ? 422 : 201)
    }
  })

  it('mistakes of the app are a 500 of Nest', async () => {
    class Orders {
      create() {
        return 'x'
      }
    }
    decorate(Orders, [Controller()], { create: { on: [Post()] } })
    const { url } = await start(Orders, { scope: () => undefined as never })
    expect((await request(url, { key: freshKey() })).status).toBe(500)
  })

  it('the module may come from a factory; it starts Pawl, and stops it', async () => {
    class Orders {
      create() {
        return { at: Math.random() }
      }
    }
    decorate(Orders, [Controller()], { create: { on: [Post()] } })
    const pawl = newPawl()
    const imports = [
      IdempotencyModule.forRootAsync({
        inject: ['who'],
        imports: [provides('who', 'me')],
        useFactory: async (who: string) => ({ pawl, scope: () => who }),
      }),
    ]
    const { url, nest } = await start(Orders, {}, { imports })
    const key = freshKey()
    await request(url, { key })
    expect((await pawl.find({ scope: 'me', key }))?.status).toBe('done')
    await nest.close()
    const { rows } = await database.pool.query('select 1 from pawl.processes')
    expect(rows).toEqual([])
  })

  it('wrong options are errors where they are given', async () => {
    expect(() => IdempotencyModule.forRoot({} as never)).toThrow(/not a Pawl/)
    const wrong = { pawl: newPawl(), wait: 'soon' }
    expect(() => IdempotencyModule.forRoot(wrong)).toThrow(/"wait" is "soon"/)
    expect(() => Idempotent({ wait: 'soon' })).toThrow(/"wait" is "soon"/)
  })
})

/** A module that provides one value. */
function provides(provide: string, useValue: unknown) {
  class Values {}
  decorate(Values, [Module({ providers: [{ provide, useValue }], exports: [provide] })])
  return Values
}
