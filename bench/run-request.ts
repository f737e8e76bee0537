/** One keyed request, without its HTTP: claimed, worked on, and its outcome recorded. */
import { randomUUID } from 'node:crypto'
import type { Attempt } from '../lib/engine/attempt.ts'
import { executionId } from '../lib/engine/execution-id.ts'
import type { Pawl } from '../lib/index.ts'

/** @param retentionMs how long the outcome is kept, in ms */
export async function runRequest(
  pawl: Pawl,
  retentionMs: number,
  work: (attempt: Attempt) => Promise<void> = async () => {},
): Promise<void> {
  const key = randomUUID()
  const claim = { name: 'bench', fingerprint: Buffer.alloc(33), retentionMs: 3_600_000 }
  const begun = await pawl.engine.begin({
    claim: { ...claim, id: executionId('', key), scope: '', key, recovery: null },
    resumable: undefined,
    waitMs: 0,
  })
  if (begun.kind !== 'run') throw new Error(begun.kind)
  await work(begun.attempt)
  const outcome = { status: 200, headers: Buffer.from('[]'), body: Buffer.from('{}') }
  await begun.attempt.complete(outcome, retentionMs, false)
}
