import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { currentExecution, Pawl } from '../../lib/index.ts'
import { silent, startApp } from '../helpers/app.ts'
import { FAST, startPostgres, type TestPostgres } from '../helpers/postgres.ts'
import { variants } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'

// The WAL writer, which flushes asynchronous commits, sleeps for as long as it can: a crash loses them.
const FLAGS = [...FAST, '-c', 'wal_writer_delay=10s']

let server: TestPostgres

beforeAll(async () => {
  server = await startPostgres(FLAGS)
})
afterAll(() => server.stop())

describe.each(variants(['read committed', 'serializable'], ['read committed']))(
  'P1 One outcome and P2 Durable before visible, with synchronous_commit = off and %s by default',
  (isolation) => {
    let url: string
    beforeAll(async () => {
      const name = isolation.replace(' ', '_')
      const client = new pg.Client({ connectionString: server.url })
      await client.connect()
      await client.query(`create database ${name}`)
      await client.query(`alter database ${name} set synchronous_commit = off`)
      await client.query(
        `alter database ${name} set default_transaction_isolation = '${isolation}'`,
      )
      await client.end()
      url = Object.assign(new URL(server.url), { pathname: `/${name}` }).href
    })

    /** Opened once the database is as it shall be, so that its defaults apply. */
    function openPawl(): Pawl {
      return new Pawl({
        database: url,
        migrate: true,
        logger: silent,
        storeTimeout: '60s',
        drainTimeout: 0,
      })
    }

    it('is a real test: a crash loses what the app has committed', async () => {
      const query = async (sql: string) => {
        const client = new pg.Client({ connectionString: url })
        await client.connect()
        const { rows } = await client.query(sql).finally(() => client.end())
        return rows
      }
      await query('create table notes (id int)')
      await query('checkpoint')
      // Again if the WAL writer woke up in between, as it does once in ten seconds.
      do {
        await query('insert into notes values (1)')
        await server.crash()
      } while ((await query('delete from notes returning id')).length > 0)
    })

    it.each([
      ['a request', {}],
      ['a request that is one transaction', { transaction: true }],
    ])('a crash of PostgreSQL does not lose the answer of %s', async (_, options) => {
      let runs = 0
      const settings = { migrate: true, storeTimeout: '60s' } as const
      const app = await startApp(
        url,
        options,
        (express) => {
          express.post('/', (_req, res) => res.status(201).json({ run: ++runs }))
        },
        { pawl: settings },
      )
      const key = freshKey()
      const first = await request(app.url, { key })
      await server.crash()
      const second = await request(app.url, { key })
      expect([first.status, second.status]).toEqual([201, 201])
      expect(second.text).toBe(first.text)
      expect(runs).toBe(1)
    })

    it.each(variants(['step', 'transaction', 'intent'], ['step', 'intent']))(
      'a crash of PostgreSQL loses neither the claim nor the recorded %s of a running request',
      async (kind) => {
        let [runs, charges] = [0, 0]
        const app = await startApp(
          url,
          { resumable: true },
          (express) => {
            express.post('/', async (_req, res) => {
              runs++
              const execution = currentExecution()!
              const charge = async () => {
                charges++
                if (kind === 'intent') await server.crash()
              }
              if (kind === 'transaction') await execution.transaction('charge', charge)
              else await execution.step('charge', charge, { atMostOnce: kind === 'intent' })
              if (runs === 1) {
                if (kind !== 'intent') await server.crash()
                return res.status(503).end()
              }
              res.status(201).json({ charges })
            })
          },
          { pawl: { migrate: true, storeTimeout: '60s' } },
        )
        const key = freshKey()
        expect((await request(app.url, { key })).status).toBe(503)
        expect((await request(app.url, { key })).json).toEqual({ charges: 1 })
        expect([runs, charges]).toEqual([2, 1])
      },
    )

    it('a crash of PostgreSQL loses no workflow that was started, no signal and no result', async () => {
      const pawl = openPawl()
      let runs = 0
      const greet = pawl.workflow('greet', async (execution) => {
        runs++
        return `hello ${await execution.signal<string>('name')}`
      })
      await pawl.start()
      const handle = await greet.start(undefined)
      await server.crash()
      await handle.signal('name', 'you')
      await server.crash()
      expect(await handle.result()).toBe('hello you')
      const before = runs
      await server.crash()
      expect(await handle.result()).toBe('hello you')
      expect(runs).toBe(before)
      await pawl.stop()
    })
  },
)
