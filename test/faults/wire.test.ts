import { describe, expect, it } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, request } from '../helpers/request.ts'
import { isClaim, isCompletion, type Passing, startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * An app, and a count of what ran; its handlers work for `ms`, and until `latch` is open. Whether a 503 comes
 * in time is a matter of `storeTimeout`; a test that expects none gives a busy machine all the time it needs.
 */
async function start(
  url: string,
  { ms = 0, latch = Promise.resolve(), wait = '20s', storeTimeout = '20s' } = {},
) {
  const runs: string[] = []
  const app = await startApp(
    url,
    { wait },
    (app) => {
      app.post('/', async (req, res) => {
        runs.push(req.get('idempotency-key') as string)
        await pause(ms)
        await latch
        res.status(201).json({ run: runs.length, random: Math.random() })
      })
    },
    { pawl: { storeTimeout } },
  )
  return { ...app, runs }
}

const log = async (key: string) => {
  const { rows } = await database.pool.query('select * from pawl.execution_log where key = $1', [
    key,
  ])
  return rows[0]
}

/** As a client does: again with the same key while there is no final answer. */
async function persistently(url: string, key: string) {
  for (let tries = 1; ; tries++) {
    const answer = await request(url, { key })
    if (answer.status !== 503 || tries > 50) return answer
    await pause(100)
  }
}

/** Opens once, for everybody. */
function newLatch() {
  let open = () => {}
  const latch = new Promise<void>((resolve) => {
    open = resolve
  })
  return { latch, open }
}

/** Kills the connection whose statement this is, in place of its reply. */
const terminate = (sql: string) =>
  database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and query like $1`,
    [`%${sql}%`],
  )

/** A tap that does something else with the first reply, or with `most` replies, to such a statement. */
async function loseReply(
  which: (statement: string) => boolean,
  lose: (passing: Passing) => void = () => {},
  most = 1,
) {
  let lost = 0
  const tap = await startTap(database.url, {
    onReply: (passing) => {
      if (which(passing.statement) && lost < most) {
        lost++
        lose(passing)
      } else passing.forward()
    },
  })
  return {
    url: tap.url,
    close: tap.close,
    lost: () => lost,
    heal: () => {
      most = 0
    },
  }
}

describe('a claim whose reply is lost', () => {
  it('because the connection broke: it is recognised when it is sent again, and runs once', async () => {
    const tap = await loseReply(isClaim, () =>
      terminate('scope, key, name, fingerprint, retention'),
    )
    const { url, runs } = await start(tap.url)
    const key = freshKey()
    const answer = await request(url, { key })
    expect(tap.lost()).toBe(1)
    expect(answer.status).toBe(201)
    expect(runs).toEqual([key])
    expect((await request(url, { key })).body).toEqual(answer.body)
    expect(await log(key)).toMatchObject({ status: 'done', attempt: 1 })
    await tap.close()
  })

  it('because nothing comes back: 503, nothing ran, and any process can run it at once', async () => {
    // All of them: a claim that is sent again just before the time is up would find itself.
    const tap = await loseReply(isClaim, () => {}, Number.POSITIVE_INFINITY)
    const [lossy, other] = [await start(tap.url, { storeTimeout: '1s' }), await start(database.url)]
    const key = freshKey()
    const refused = await request(lossy.url, { key })
    expect(refused.status).toBe(503)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    tap.heal()
    await waitFor('the claim to be given back', async () => !(await log(key)))
    const answer = await request(other.url, { key })
    expect(answer.status).toBe(201)
    expect([lossy.runs, other.runs]).toEqual([[], [key]])
    expect((await persistently(lossy.url, key)).body).toEqual(answer.body)
    await tap.close()
  })
})

describe('a completion whose reply is lost', () => {
  it.each([
    ['because the connection broke', () => terminate("set status = 'done'")],
    ['because nothing comes back', () => {}],
  ])('%s: it is sent again, finds its own outcome, and the client gets it', async (_, lose) => {
    const tap = await loseReply(isCompletion, lose)
    const { url, runs } = await start(tap.url, { storeTimeout: '1s' })
    const key = freshKey()
    // With nothing coming back, the timeout of the answer may be over first.
    const answer = await persistently(url, key)
    expect(tap.lost()).toBe(1)
    expect(answer.status).toBe(201)
    expect((await request(url, { key })).body).toEqual(answer.body)
    expect(runs).toEqual([key])
    await tap.close()
  })
})

describe('a store that goes away while the handler runs', () => {
  it.each(['refuse', 'freeze'] as const)(
    '(%s) and comes back soon: the answer is held, recorded and sent',
    async (fault) => {
      const proxy = await startProxy(database.url)
      const { url, runs } = await start(proxy.url, { ms: 100, storeTimeout: '10s' })
      const key = freshKey()
      const waiting = request(url, { key })
      await waitFor('the handler', () => runs.length === 1)
      proxy[fault]()
      if (fault === 'refuse') proxy.cut()
      let answered = false
      waiting.then(() => {
        answered = true
      })
      await pause(500)
      expect(answered).toBe(false)
      proxy.restore()
      const answer = await waiting
      expect(answer.status).toBe(201)
      expect(await log(key)).toMatchObject({ status: 'done', response_body: answer.text })
      await proxy.close()
    },
  )

  it('and stays away: 503 in time; once it is back, retries get the outcome, and nothing runs twice', async () => {
    const { latch, open } = newLatch()
    const proxy = await startProxy(database.url)
    const [first, second] = [
      await start(proxy.url, { latch, storeTimeout: '1s' }),
      await start(database.url),
    ]
    const key = freshKey()
    const waiting = request(first.url, { key })
    await waitFor('the handler', () => first.runs.length === 1)
    proxy.refuse()
    proxy.cut()
    open()
    const refused = await waiting
    expect(refused.status).toBe(503)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    // Meanwhile it is running for everybody, and whoever asks may wait for it.
    const elsewhere = request(second.url, { key })
    await pause(300)
    proxy.restore()
    const [here, there] = [await persistently(first.url, key), await elsewhere]
    expect(here.status).toBe(201)
    expect(there.body).toEqual(here.body)
    expect([...first.runs, ...second.runs]).toEqual([key])
    await proxy.close()
  })
})

describe('a store that is away when a request arrives', () => {
  it.each(['refuse', 'cut', 'freeze'] as const)(
    '(%s): 503 in bounded time or an answer, never a run without a claim; then it heals by itself',
    async (fault) => {
      const proxy = await startProxy(database.url)
      const { url, runs } = await start(proxy.url, {
        // A broken connection costs no time, but opening others beside a busy machine may.
        storeTimeout: fault === 'cut' ? '20s' : '1s',
      })
      expect((await persistently(url, freshKey())).status).toBe(201)
      proxy[fault]()
      if (fault === 'refuse') proxy.cut()
      const keys = Array.from({ length: 20 }, freshKey)
      const answers = await Promise.all(keys.map((key) => request(url, { key })))
      // A cut connection is replaced, and the client notices nothing.
      const expected = fault === 'cut' ? 201 : 503
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([expected]))
      expect(runs.length).toBe(fault === 'cut' ? 21 : 1)
      proxy.restore()
      for (const key of keys) {
        const answer = await waitFor('an answer', async () => {
          const answer = await request(url, { key })
          return answer.status === 201 ? answer : null
        })
        expect(answer.json.run).toBeGreaterThan(1)
      }
      expect(new Set(runs).size).toBe(runs.length)
      await proxy.close()
    },
  )
})

describe('a wait for another process', () => {
  it('survives the death of the connection that listens', async () => {
    const { latch, open } = newLatch()
    const [runner, waiter] = [await start(database.url, { latch }), await start(database.url)]
    const key = freshKey()
    const first = request(runner.url, { key })
    await waitFor('the handler', () => runner.runs.length === 1)
    const second = request(waiter.url, { key })
    await waitFor('LISTEN', async () => (await terminate('listen "pawl"')).rowCount || null)
    open()
    expect((await second).body).toEqual((await first).body)
    expect(waiter.runs).toEqual([])
  })
})
