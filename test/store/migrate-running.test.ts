import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { expect, it } from 'vitest'
import { migrate } from '../../lib/store/migrate.ts'
import { LOCK_TIMEOUT_MS } from '../../lib/store/migrations/apply-stage.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { progressLog, withNext, withSchemas } from '../helpers/migrations.ts'
import { cases, isProof } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase({ empty: true })
const { open, openTransaction } = withSchemas(database)

/** What a read or write takes beside the wait for a lock, on a machine that is busy or not. */
const SLACK_MS = isProof ? 1000 : 3000

const STAGES = `-- compatible from: 1
-- stage: transaction
alter table pawl.executions add column color text,
  add constraint executions_color check (color <> '') not valid;
-- stage: transaction
alter table pawl.executions validate constraint executions_color;
-- stage: concurrently
create index concurrently if not exists executions_color on pawl.executions (color, created_at);
`

/** Does something again and again, and keeps how long each took, in ms. */
async function repeat(isOver: () => boolean, work: () => Promise<unknown>): Promise<number[]> {
  const took: number[] = []
  while (!isOver()) {
    const begun = performance.now()
    await work()
    took.push(performance.now() - begun)
  }
  return took
}

it('While a migration waits for a transaction that stays open, no read and no write waits longer than for one try', async () => {
  await migrate(open(), 'pawl')
  const rows = cases(20_000, { proof: 1_000_000 })
  await database.pool.query(
    `insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, attempt, created_at, expires_at)
     select gen_random_uuid(), '', n::text, 'request', 'POST /', '', 'done', 1, now(), now() + interval '1 day'
     from generate_series(1, ${rows}) n`,
  )
  const { all, next } = await withNext(STAGES)
  const app = await startApp(
    database.url,
    {},
    (app) => app.post('/', (_req, res) => void res.status(201).json({})),
    { pawl: { storeTimeout: '5s' } },
  )
  const connections = Array.from(
    { length: 4 },
    () => new pg.Client({ connectionString: database.url }),
  )
  await Promise.all(connections.map((client) => client.connect()))

  const blocker = await openTransaction('pawl.executions')
  let isOver = false
  const statuses = new Set<number>()
  const writers = connections.map(() =>
    repeat(
      () => isOver,
      async () => statuses.add((await request(app.url, { key: freshKey() })).status),
    ),
  )
  const readers = connections.map((client) =>
    repeat(
      () => isOver,
      () => client.query('select status from pawl.executions where id = $1', [randomUUID()]),
    ),
  )
  const { lines, ...logger } = progressLog()
  const migrated = migrate(open(), 'pawl', { migrations: all, logger })
  await waitFor('tries', () => lines.find((line) => line.endsWith(`try ${isProof ? 4 : 2}`)))
  await blocker.end()
  expect(await migrated).toEqual([next.name])
  isOver = true
  const took = await Promise.all([...writers, ...readers])
  await Promise.all(connections.map((client) => client.end()))

  expect(statuses).toEqual(new Set([201]))
  const longest = took.map((each) => Math.max(...each))
  if (isProof) console.log(`longest waits: ${longest.map(Math.round).join(', ')} ms`)
  for (const ms of longest) expect(ms).toBeLessThan(LOCK_TIMEOUT_MS + SLACK_MS)
  // It was blocked, and they with it.
  expect(Math.max(...longest)).toBeGreaterThan(LOCK_TIMEOUT_MS / 2)
  for (const each of took) expect(each.length).toBeGreaterThan(20)
  const { rows: index } = await database.pool.query(
    `select indisvalid from pg_index where indexrelid = 'pawl.executions_color'::regclass`,
  )
  expect(index).toEqual([{ indisvalid: true }])
})
