/** A module for `pawl work`. */
import { setTimeout } from 'node:timers/promises'
import { Pawl } from '../../lib/index.ts'

const { DATABASE_URL, DRAIN_TIMEOUT = '10s', ENCRYPTION_KEY } = process.env

export const pawl = new Pawl({
  database: DATABASE_URL as string,
  // Nobody is taken for dead: what goes on elsewhere was given back.
  processTimeout: '10 minutes',
  drainTimeout: DRAIN_TIMEOUT,
  workers: false,
  ...(ENCRYPTION_KEY && { encryptionKeys: [{ id: 'test', key: ENCRYPTION_KEY }] }),
})

/** Ends in the second attempt, or when it is allowed to take its time. */
pawl.workflow('long', async (execution, input: { ms: number }) => {
  await execution.step('begin', () => execution.attempt)
  console.log(`attempt ${execution.attempt} runs in ${process.pid}`)
  if (execution.attempt === 1) await setTimeout(input.ms)
  return execution.step('end', () => process.pid)
})

pawl.workflow('asking', { version: '2' }, (execution) => execution.signal('answer'))

const failing = pawl.workflow('failing', { retry: 1 }, async () => {
  throw new Error('it is broken')
})

pawl.schedule('yearly', { cron: '@yearly', timezone: 'Europe/Berlin' }, failing)
