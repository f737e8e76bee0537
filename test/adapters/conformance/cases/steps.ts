import { setImmediate } from 'node:timers/promises'
import { expect } from 'vitest'
import { currentExecution, step } from '../../../../lib/index.ts'
import type { Case } from '../case.ts'

/** A service that knows nothing of requests. */
async function charge(amounts: string[], amount: string): Promise<string> {
  await setImmediate()
  return step('charge', async () => {
    amounts.push(amount)
    return `charge ${amounts.length}`
  })
}

/** The journal, as handlers of every framework reach it. */
export const steps: Case[] = [
  {
    row: 'current',
    name: 'code below the handler finds the execution, each request its own',
    handle: async () => {
      await setImmediate()
      return { json: { key: currentExecution()?.key ?? null } }
    },
    act: async ({ send, key }) => {
      const answers = await Promise.all(['A', 'B', 'C'].map((name) => send({ key: name })))
      expect(answers.map(({ json }) => json.key)).toEqual(['A', 'B', 'C'].map((name) => key(name)))
      expect((await send({ key: null })).json).toEqual({ key: null })
    },
  },
  {
    row: 'row 24',
    name: 'a 5xx behind a recorded step is sent, and the retry resumes behind it',
    handle: async ({ execution, header }, run) => {
      const charged = await charge(charges, header('x-amount') ?? '')
      return { status: run === 1 ? 502 : 201, json: { charged, attempt: execution?.attempt } }
    },
    act: async ({ send, runs }) => {
      charges.length = 0
      const headers = { 'X-Amount': '5' }
      const first = await send({ headers })
      expect([first.status, first.json]).toEqual([502, { charged: 'charge 1', attempt: 1 }])
      const second = await send({ headers })
      expect([second.status, second.json]).toEqual([201, { charged: 'charge 1', attempt: 2 }])
      expect((await send({ headers })).headers['idempotent-replayed']).toBe('true')
      expect([charges, runs()]).toEqual([['5'], 2])
    },
  },
  {
    row: 'row 24',
    name: 'a handler that throws behind a recorded step resumes as well',
    handle: async (_, run) => {
      const charged = await charge(charges, '7')
      if (run === 1) throw new Error('boom')
      return { json: { charged } }
    },
    act: async ({ send }) => {
      charges.length = 0
      expect((await send({})).status).toBe(500)
      expect((await send({})).json).toEqual({ charged: 'charge 1' })
      expect(charges).toEqual(['7'])
    },
  },
]

const charges: string[] = []
