import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases, isProof } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { withRuns } from '../helpers/runs.ts'
import { isClaim, isCompletion, type Passing, startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

describe('P2 Durable before visible', () => {
  const database = withDatabase()
  withRuns(database)

  const status = async (key: string): Promise<string | undefined> => {
    const sql = 'select status, response_status from pawl.execution_log where key = $1'
    return (await database.pool.query(sql, [key])).rows[0]?.status
  }

  it('lets no byte of the answer leave while the commit of its outcome is held back', async () => {
    let held: (() => void) | undefined
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (isCompletion(statement) && !held) held = forward
        else forward()
      },
    })
    const app = await spawnApp('orders.ts', { DATABASE_URL: tap.url })
    const key = freshKey()
    const client = post(app, key)
    await waitFor('the completion', () => held)
    // Postgres has committed, but the app cannot know it yet.
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(client.received()).toBe('')
    held?.()
    await waitFor('the answer', () => client.received().includes('201 Created'))
    expect(await status(key)).toBe('done')
    await app.kill()
    await tap.close()
  })

  /** Each place between the arrival of a request and its answer where a process can die. */
  const boundaries: {
    name: string
    at: 'statement' | 'reply'
    is: (statement: string) => boolean
    forwarded: boolean
    /** What is left behind. */
    leaves: 'nothing' | 'interrupted' | 'done'
  }[] = [
    {
      name: 'before the claim is sent',
      at: 'statement',
      is: isClaim,
      forwarded: false,
      leaves: 'nothing',
    },
    {
      name: 'after the claim, before its reply',
      at: 'reply',
      is: isClaim,
      forwarded: false,
      leaves: 'interrupted',
    },
    {
      name: 'with the reply of the claim',
      at: 'reply',
      is: isClaim,
      forwarded: true,
      leaves: 'interrupted',
    },
    {
      name: 'before the outcome is sent',
      at: 'statement',
      is: isCompletion,
      forwarded: false,
      leaves: 'interrupted',
    },
    {
      name: 'after the outcome is committed, before its reply',
      at: 'reply',
      is: isCompletion,
      forwarded: false,
      leaves: 'done',
    },
  ]

  // In `npm test` one that leaves each: an unknown outcome, and one that is replayed.
  const some = boundaries.filter(
    ({ at, forwarded, leaves }) => at === 'reply' && !forwarded && leaves !== 'nothing',
  )
  it.each(isProof ? boundaries : some)(
    'shows no answer that is not stored when the process is killed $name',
    async (boundary) => {
      let app: ChildApp | undefined
      let killed = false
      const act = ({ statement, forward }: Passing) => {
        if (!killed && boundary.is(statement)) {
          killed = true
          if (boundary.forwarded) forward()
          process.kill(app!.pid, 'SIGKILL')
        } else forward()
      }
      const tap = await startTap(database.url, {
        [boundary.at === 'statement' ? 'onStatement' : 'onReply']: act,
      })
      const settings = JSON.stringify({ instance: boundary.name })
      app = await spawnApp('orders.ts', { DATABASE_URL: tap.url, PAWL: settings })
      const key = freshKey()
      const client = post(app, key)
      await app.exited
      await client.closed
      expect(killed).toBe(true)
      expect(client.received()).toBe('')

      // The process comes back under its name; a retry gets what the rule says, and never a lie.
      const again = await spawnApp('orders.ts', { DATABASE_URL: database.url, PAWL: settings })
      expect((await status(key)) ?? 'nothing').toBe(boundary.leaves)
      const retry = await request(`${again.url}/orders`, { key, body: {} })
      if (boundary.leaves === 'interrupted') {
        expect(retry.status).toBe(409)
        expect(retry.json.type).toBe('urn:pawl:problem:outcome-unknown')
      } else {
        expect(retry.status).toBe(201)
        expect(retry.headers['idempotent-replayed']).toBe(
          boundary.leaves === 'done' ? 'true' : undefined,
        )
      }
      await again.kill()
      await tap.close()
    },
  )

  it('keeps every answer that a client saw, however the process dies', async () => {
    const seen = new Map<string, string>()
    const start = () =>
      spawnApp('orders.ts', {
        DATABASE_URL: database.url,
        PAWL: JSON.stringify({ instance: 'victim' }),
      })
    const rounds = cases(2, { proof: 6 })
    for (let round = 0; round < rounds; round++) {
      const app = await start()
      const clients = Array.from({ length: 60 }, () => {
        const key = freshKey()
        return { key, client: post(app, key, { ms: Math.floor(Math.random() * 60) }) }
      })
      // In the middle: some have their answer, some are about to get it, some are at work.
      const enough = 1 + Math.floor(Math.random() * 30)
      await waitFor(
        'the first answers',
        () => clients.filter(({ client }) => client.received()).length >= enough,
      )
      await app.kill()
      for (const { key, client } of clients) {
        await client.closed
        if (client.received()) seen.set(key, client.received())
      }
    }
    expect(seen.size).toBeGreaterThan(5)
    expect(seen.size).toBeLessThan(rounds * 60)
    const { rows } = await database.pool.query(
      `select key, response_status, response_body from pawl.execution_log where key = any($1) and status = 'done'`,
      [[...seen.keys()]],
    )
    const stored = new Map(rows.map((row) => [row.key, row]))
    for (const [key, bytes] of seen) {
      expect(bytes.startsWith(`HTTP/1.1 ${stored.get(key)?.response_status} `)).toBe(true)
      const body = bytes.slice(bytes.indexOf('\r\n\r\n') + 4)
      expect(stored.get(key)?.response_body.startsWith(body)).toBe(true)
    }
  }, 120_000)
})

/** A client that notes every byte it is sent. */
function post(app: ChildApp, key: string, body: object = {}) {
  const { port, hostname } = new URL(app.url)
  const json = JSON.stringify(body)
  const socket = connect(Number(port), hostname)
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk
  })
  socket.on('error', () => {})
  socket.write(
    `POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nIdempotency-Key: ${key}\r\nContent-Length: ${json.length}\r\n\r\n${json}`,
  )
  return {
    received: () => received,
    closed: new Promise((resolve) => socket.on('close', resolve)),
  }
}
