import { once } from 'node:events'
import http from 'node:http'
import { connect, type Socket } from 'node:net'
import { expect } from 'vitest'
import { waitFor } from '../../../helpers/wait-for.ts'
import type { Case } from '../case.ts'

function open(url: string): Socket {
  const { hostname, port } = new URL(url)
  return connect(Number(port), hostname)
}

/** Sends bytes as they are and collects all that comes back until the server closes. */
async function raw(url: string, bytes: string): Promise<string> {
  const socket = open(url)
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
  })
  socket.setTimeout(30_000, () => socket.destroy(new Error(`No end after:\n${received}`)))
  socket.write(bytes)
  await once(socket, 'close')
  return received
}

const post = (key: string, more = '') =>
  `POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: ${key}\r\n${more}Content-Length: 0\r\n\r\n`

/** What comes over one connection, and what does not arrive whole. */
export const connections: Case[] = [
  {
    row: 'connections',
    name: 'requests in a pipeline are answered in order, each key once',
    act: async ({ url, key }) => {
      const [one, two] = [key('A'), key('B')]
      const answers = await raw(
        url,
        post(one) + post(two) + post(one) + post(two, 'Connection: close\r\n'),
      )
      // Frameworks that see the second before the first is answered may run it before.
      const bodies = answers.match(/\{"run":\d\}/g) ?? []
      expect(bodies.slice(0, 2).toSorted()).toEqual(['{"run":1}', '{"run":2}'])
      expect(bodies.slice(2)).toEqual(bodies.slice(0, 2))
      expect(answers.match(/Idempotent-Replayed: true/gi)).toHaveLength(2)
    },
  },
  {
    row: 'connections',
    name: 'a connection that is kept alive serves the next request, whatever Pawl answered',
    act: async ({ url, key }) => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
      const ports = new Set<number | undefined>()
      const ask = async (given: string, body: string) => {
        const headers = { 'Idempotency-Key': given, 'Content-Type': 'text/plain' }
        const outgoing = http.request(url, { agent, method: 'POST', headers })
        outgoing.end(body)
        const [response] = (await once(outgoing, 'response')) as [http.IncomingMessage]
        ports.add(outgoing.socket?.localPort)
        await response.toArray()
        return response.statusCode
      }
      const statuses = []
      // A body that nobody has read must not be taken for the next request.
      for (const [given, body] of [
        [key(), 'a'],
        [key(), 'a'],
        [key(), 'b'],
        ['"open', 'POST / HTTP/1.1\r\n\r\n'],
        [key(), 'a'],
      ] as const) {
        statuses.push(await ask(given, body))
      }
      expect(statuses).toEqual([200, 200, 422, 400, 200])
      expect(ports.size).toBe(1)
      agent.destroy()
    },
  },
  {
    row: 'row 14',
    name: 'a client that hangs up in the middle of its body leaves nothing behind',
    act: async ({ url, key, send, stored, runs }) => {
      const socket = open(url)
      await once(socket, 'connect')
      const head = 'Content-Type: text/plain\r\nContent-Length: 10'
      socket.write(`POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: ${key()}\r\n${head}\r\n\r\nhalf`)
      // What is asked later is answered later: the half is there.
      await send({ key: 'B' })
      socket.destroy()
      await send({ key: 'C' })
      expect(await stored()).toBeUndefined()
      expect(runs()).toBe(2)
      const whole = await send({ body: 'all of it', headers: { 'Content-Type': 'text/plain' } })
      expect(whole.json).toEqual({ run: 3 })
    },
  },
  {
    row: 'row 27',
    name: '100 KB of headers, or 10,000 lines of them, are refused before anything is stored',
    act: async ({ url, key, stored, send }) => {
      for (const headers of [`X-A: ${'x'.repeat(100_000)}\r\n`, 'X-A: x\r\n'.repeat(10_000)]) {
        const answer = await raw(url, post(key(), `${headers}Connection: close\r\n`)).catch(
          () => '431',
        )
        expect(answer).toMatch(/431/)
        expect(await stored()).toBeUndefined()
      }
      await waitFor('an answer', async () => (await send({})).status === 200)
    },
  },
]
