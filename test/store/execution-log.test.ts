import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, lookAt, openStore } from '../helpers/store.ts'

const database = withDatabase()
const log = async (id: string) => {
  const { rows } = await database.pool.query('select * from pawl.execution_log where id = $1', [id])
  return rows[0]
}

/** A done execution with this body. */
async function done(body: Buffer | null) {
  const side = await openStore(database.url)
  const attempt = await claimNew(side, claimOf())
  const outcome = { status: 201, headers: Buffer.from('[["X-Name",["ä","b"]]]'), body }
  await side.store.complete({ ...completionOf(attempt, ''), outcome })
  return log(attempt.id)
}

describe('pawl.execution_log', () => {
  it('tells what is running, where, and for how long', async () => {
    const side = await openStore(database.url)
    const claim = claimOf(undefined, { scope: 'tenant' })
    await claimNew(side, claim)
    expect(await log(claim.id)).toMatchObject({
      scope: 'tenant',
      key: claim.key,
      kind: 'request',
      name: 'POST /orders',
      status: 'running',
      attempt: 1,
      owner: side.owner,
      owner_alive: true,
      owner_host: 'host',
      owner_pid: 1,
      response_status: null,
      response_headers: null,
      response_body: null,
      body_kept: false,
      completed_at: null,
      duration: expect.anything(),
    })
  })

  it('shows as interrupted what a dead process was running', async () => {
    const [dead, gone] = await Promise.all([
      openStore(database.url),
      openStore(database.url, false),
    ])
    const [expired, missing] = [claimOf(), claimOf()]
    await claimNew(dead, expired)
    await claimNew(gone, missing)
    expect((await log(expired.id)).status).toBe('running')
    await dead.live(0)
    expect(await log(expired.id)).toMatchObject({ status: 'interrupted', owner_alive: false })
    expect(await log(missing.id)).toMatchObject({
      status: 'interrupted',
      owner_alive: false,
      owner_pid: null,
    })
  })

  it.each(['released', 'unknown'] as const)(
    'shows what is %s, and that nobody owns it',
    async (status) => {
      const side = await openStore(database.url)
      const attempt = await claimNew(side, claimOf())
      await side.store.release(attempt, status)
      expect(await log(attempt.id)).toMatchObject({ status, owner: null, owner_alive: false })
    },
  )

  it('shows an outcome as people read it', async () => {
    expect(await done(Buffer.from('{"name":"ä€😀"}'))).toMatchObject({
      status: 'done',
      response_status: 201,
      response_headers: [['X-Name', ['ä', 'b']]],
      response_body: '{"name":"ä€😀"}',
      body_kept: true,
      completed_at: expect.any(Date),
    })
  })

  it.each([
    ['an empty body', Buffer.alloc(0), '', true],
    ['a body that was not kept', null, null, false],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x01]), '<3 bytes, not UTF-8>', true],
    ['a body with NUL', Buffer.from('a\0b'), '<3 bytes, not UTF-8>', true],
  ])('shows %s as what it is', async (_, body, shown, kept) => {
    expect(await done(body)).toMatchObject({ response_body: shown, body_kept: kept })
  })

  it('shows a huge body, and lists without reading it', async () => {
    const size = 20 * 1024 ** 2
    const { id, response_body } = await done(Buffer.alloc(size, 'x'))
    expect(response_body.length).toBe(size)
    const { rows } = await database.pool.query(
      `explain (analyze, buffers, format json)
       select status, key, body_kept from pawl.execution_log where id = $1`,
      [id],
    )
    const [{ Plan }] = rows[0]['QUERY PLAN']
    expect(Plan['Shared Hit Blocks'] + Plan['Shared Read Blocks']).toBeLessThan(50)
  })

  it('can be read by a parallel query', async () => {
    await database.pool.query(
      `insert into pawl.executions
         (id, scope, key, kind, name, fingerprint, status, attempt, response_body, created_at, expires_at)
       select gen_random_uuid(), 'parallel', n::text, 'request', '', '', 'done', 1, '\\xff', pawl.now(),
         pawl.now() + interval '1 day' from generate_series(1, 5000) as n`,
    )
    const client = await database.pool.connect()
    try {
      await client.query(
        'set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0',
      )
      const { rows } = await client.query(
        `select count(*)::int as n from pawl.execution_log
         where response_body = '<1 bytes, not UTF-8>'`,
      )
      expect(rows[0].n).toBe(5000)
    } finally {
      client.release(true)
    }
  })

  it('still shows what has expired, until it is deleted', async () => {
    const side = await openStore(database.url)
    const attempt = await claimNew(side, claimOf(undefined, { retentionMs: 0 }))
    await side.store.release(attempt, 'released')
    expect((await lookAt(side, attempt.id)).expired).toBe(true)
    expect((await log(attempt.id)).status).toBe('released')
  })
})
