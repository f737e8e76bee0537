/** Reads large stored bodies apart from their executions, a limited number of bytes at a time. */

import { toBufferOrNull } from './database/buffers.ts'
import type { Database } from './database/database.ts'
import { column } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { GroupCommit } from './group-commit.ts'

/** How many bytes one statement reads at most, unless one body alone is larger. */
const MAX_BYTES = 8 * 1024 ** 2

/** What was read of an execution. */
interface Found {
  incarnation: string
  outcome: { body: Buffer | null; largeBody?: number } | null
}

interface LargeBody {
  id: string
  incarnation: string
  bytes: number
}

/**
 * The bodies that were too large to be read together with their executions: replays of large responses must not hold
 * up small requests that share a batch with them. An outcome that was read without its body has its length in bytes
 * as `largeBody`.
 */
export class StoredBodies {
  readonly #reads: GroupCommit<LargeBody, Buffer | null>

  /** @param sql the statement that reads bodies */
  constructor(db: Database, sql: string) {
    this.#reads = new GroupCommit((batch) => readBodies(db, sql, batch), db.timeoutMs, {
      maxBytes: MAX_BYTES,
      sizeOf: ({ bytes }) => bytes,
    })
  }

  /** The execution with the body of its outcome; null if it was deleted meanwhile. */
  async addTo<E extends Found>(id: string, found: E | null): Promise<E | null> {
    if (!found?.outcome?.largeBody) return found
    const { largeBody: bytes, ...outcome } = found.outcome
    const body = await withStoreErrors(
      this.#reads.run({ id, incarnation: found.incarnation, bytes }),
    )
    return body && { ...found, outcome: { ...outcome, body } }
  }
}

async function readBodies(
  db: Database,
  sql: string,
  batch: LargeBody[],
): Promise<(Buffer | null)[]> {
  const rows = await db.query(sql, [
    column('uuid', batch, (one) => one.id),
    column('int8', batch, (one) => one.incarnation),
  ])
  const bodies = new Array<Buffer | null>(batch.length).fill(null)
  for (const [n, body] of rows) bodies[(n as number) - 1] = toBufferOrNull(body)
  return bodies
}
