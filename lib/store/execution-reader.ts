/** Reads what an execution is and, on request, its state, last error and outcome. */

import { toBuffer, toBufferOrNull } from './database/buffers.ts'
import type { Database, Row } from './database/database.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { ExecutionKind, Outcome, StoredExecution } from './execution-store.ts'
import { executionStatements } from './sql/execution-statements.ts'

/** What does not change about an execution as long as it exists. */
export interface ExecutionDescription {
  id: string
  /** Distinguishes this execution from an earlier or later one under the same key; opaque. */
  incarnation: string
  kind: ExecutionKind
  /** Of a request: method and path. Of a workflow: its name. */
  name: string
  scope: string
  key: string
  createdAt: Date
}

/** An execution with its state. */
export interface ExecutionDetails extends ExecutionDescription {
  /** The version of a workflow's code; null: none. */
  version: string | null
  /** `interrupted`: the process that runs the execution is dead. */
  status: StoredExecution['status'] | 'interrupted'
  attempt: number
  /** Whether the execution was cancelled and has not ended yet. */
  cancelling: boolean
  /** The encrypted error of the last failed attempt; null: none. */
  lastError: Buffer | null
  /** The encrypted outcome; null: the execution has not ended. */
  outcome: Outcome | null
  completedAt: Date | null
}

/** Describes executions. */
export class ExecutionReader {
  readonly #db: Database
  readonly #sql: string

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = executionStatements(`"${schema}"`).describe
  }

  /** Describes an execution without its state; null: it does not exist, or has expired. */
  async describe(id: string): Promise<ExecutionDescription | null> {
    const row = await this.#read(id, false)
    return row && toDescription(id, row)
  }

  /** Describes an execution and its state; null: it does not exist. An expired one exists until it is deleted. */
  async describeInFull(id: string): Promise<ExecutionDetails | null> {
    const row = await this.#read(id, true)
    if (!row) return null
    const [version, status, attempt, cancelling, completedAt, lastError, ...outcome] = row.slice(5)
    const [code, headers, body] = outcome
    return {
      ...toDescription(id, row),
      version: version as string | null,
      status: status as ExecutionDetails['status'],
      attempt: attempt as number,
      cancelling: cancelling as boolean,
      completedAt: completedAt === null ? null : toDate(completedAt as string),
      lastError: toBufferOrNull(lastError),
      outcome:
        status === 'done'
          ? {
              status: code as number,
              headers: toBuffer(headers as Uint8Array),
              body: toBufferOrNull(body),
            }
          : null,
    }
  }

  async #read(id: string, full: boolean): Promise<Row | null> {
    const [row] = await withStoreErrors(this.#db.query(this.#sql, [id, full]))
    return row ?? null
  }
}

function toDescription(id: string, row: Row): ExecutionDescription {
  const [incarnation, kind, name, scope, key] = row as string[] as [
    string,
    ExecutionKind,
    string,
    string,
    string,
  ]
  return { id, incarnation, kind, name, scope, key, createdAt: toDate(incarnation) }
}

/** Converts microseconds since 1970 to a Date, which has milliseconds. */
function toDate(micros: string): Date {
  return new Date(Number(micros) / 1000)
}
