import { connect } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { anyCharacter } from '../helpers/any-text.ts'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { withRuns } from '../helpers/runs.ts'

describe('P10 Bad input gets a clear problem+json answer', () => {
  const database = withDatabase()
  withRuns(database)
  let app: ChildApp
  const start = async () => {
    app ??= await spawnApp('unscoped.ts', { DATABASE_URL: database.url })
    return `${app.url}/secrets`
  }

  it('any bytes as the key: an answer below 500, and a problem that says what to do if refused', async () => {
    await start()
    // Every byte that Node's HTTP parser lets into a header value.
    const byte = fc.oneof(
      fc.integer({ min: 0x20, max: 0x7e }),
      fc.integer({ min: 0x80, max: 0xff }),
      fc.constant(9),
    )
    const key = fc.oneof(
      fc.array(byte, { maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc
        .string({ maxLength: 300 })
        .map((text) => Buffer.from(text.replace(/[\0\r\n]/g, ''), 'utf8')),
      fc
        .constantFrom(
          '"',
          '""',
          '"a',
          'a"',
          '"a", "b"',
          '"a"b',
          '(a b)',
          '?1',
          '1',
          '1.5',
          ':YQ==:',
          '@1',
          'a=1',
          ',',
          '"\\x"',
        )
        .map((text) => Buffer.from(text)),
    )
    await fc.assert(
      fc.asyncProperty(key, async (bytes) => {
        const answer = await raw(app, bytes)
        const status = Number(answer.slice(9, 12))
        expect(status).toBeGreaterThanOrEqual(200)
        expect(status).toBeLessThan(500)
        // A bare 400 without a body is Node's own, for bytes that are not HTTP.
        if (status === 400 && answer.includes('application/problem+json')) {
          expect(answer).toMatch(/"type":"urn:pawl:problem:key-malformed"/)
          expect(answer).toMatch(/Correct the idempotency key/)
        }
      }),
      { numRuns: cases(80, { proof: 300 }) },
    )
  }, 120_000)

  it('any JSON as the body: run once and replayed, or a problem', async () => {
    const url = await start()
    await fc.assert(
      fc.asyncProperty(fc.json({ stringUnit: anyCharacter }), async (json) => {
        const key = freshKey()
        const body = `{"secret":${json}}`
        const headers = { 'Content-Type': 'application/json' }
        const first = await request(url, { key, body, headers })
        expect(first.status).toBe(200)
        const second = await request(url, { key, body, headers })
        expect(second.body).toEqual(first.body)
        expect(second.headers['idempotent-replayed']).toBe('true')
      }),
      { numRuns: cases(40, { proof: 100 }) },
    )
  }, 120_000)

  it('nothing is left hanging by any of it', async () => {
    await start()
    const { rows } = await database.pool.query(
      `select key, status from pawl.execution_log where status <> 'done'`,
    )
    expect(rows).toEqual([])
  })
})

/** Sends the bytes as they are, which no HTTP client would. */
function raw(app: ChildApp, key: Buffer): Promise<string> {
  const { port, hostname } = new URL(app.url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(received))
    socket.setTimeout(30_000, () => reject(new Error('No answer: a hang.')))
    socket.write(
      'POST /secrets HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n',
    )
    socket.write(Buffer.concat([Buffer.from('Idempotency-Key: '), key]))
    socket.write('\r\nContent-Length: 2\r\n\r\n{}')
  })
}
