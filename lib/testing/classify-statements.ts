/** Recognizes Pawl's statements by their text, and tells which crash points each of them has. */

import { PgArray, type Value } from '../store/database/pg-array.ts'
import type { Outcome } from '../store/execution-store.ts'
import { executionStatements } from '../store/sql/execution-statements.ts'
import { stepStatements } from '../store/sql/step-statements.ts'
import type { StepKind } from '../store/step-store.ts'

/** A change to an execution that one of Pawl's statements makes. */
export interface Operation {
  /** Operations of the same kind are numbered. */
  kind: string
  /** The moment before the statement is sent, in words to follow "crash". */
  before: string
  /** The moment after the statement has committed, in words to follow "crash". */
  after: string
  /** The id of the execution that the operation claims. */
  claims?: string
  /** The outcome that the operation records. */
  outcome?: Outcome
}

type Values = readonly (Value | undefined)[]
type Classify = (values: Values) => Operation[]

/**
 * Returns a function that lists the operations of a statement of Pawl's, recognized by its text. A batch
 * has several operations; a statement that changes no execution has none.
 *
 * @param schema the schema's name, as the user gives it
 */
export function operationClassifier(schema: string): (sql: string, values: Values) => Operation[] {
  const sql = executionStatements(`"${schema}"`)
  const steps = stepStatements(`"${schema}"`)
  const classifiers = new Map<string, Classify>([
    [sql.claim, claimOperations],
    [sql.takeOver, () => [TAKE_OVER]],
    [sql.restartExpired, () => [TAKE_OVER]],
    [steps.record, stepOperations],
    [steps.recordGuarded, stepOperations],
    [steps.giveUp, () => [GIVE_UP]],
    [sql.complete, outcomeOperations],
    [sql.completeQueued, outcomeOperations],
    [sql.release, releaseOperations],
    [sql.releaseQueued, releaseOperations],
  ])
  return (sql, values) => classifiers.get(sql)?.(values) ?? []
}

/**
 * Returns a function that recognizes, among the statements of a transaction, the one that writes Pawl's
 * journal entry, which is the last. It returns the name of the transaction: `transaction "record order"`;
 * null for the app's own statements.
 */
export function transactionEntryClassifier(
  schema: string,
): (sql: string, values: readonly (string | null)[]) => string | null {
  const { recordInTransaction, completeInTransaction } = stepStatements(`"${schema}"`)
  return (sql, values) => {
    if (sql === completeInTransaction) return 'the transaction of the request'
    if (sql !== recordInTransaction) return null
    const [, , , name, occurrence] = values
    return `transaction ${quoted(name as string, Number(occurrence))}`
  }
}

const TAKE_OVER: Operation = {
  kind: 'take-over',
  before: 'before the execution is taken over',
  after: 'after the execution is taken over, before the handler runs again',
}

const RELEASE: Operation = {
  kind: 'release',
  before: 'before the execution is given back without an outcome',
  after: 'after the execution is given back without an outcome, before the answer is sent',
}

const GIVE_UP: Operation = {
  kind: 'step',
  before: 'before the decision to give up is recorded',
  after: 'after the decision to give up is recorded',
}

function releaseOperations(values: Values): Operation[] {
  return itemsOf(values[0]).map(() => RELEASE)
}

function claimOperations(values: Values): Operation[] {
  return itemsOf(values[0]).map((id) => ({
    kind: 'claim',
    before: 'before the request is claimed',
    after: 'after the request is claimed, before its handler runs',
    claims: id as string,
  }))
}

function stepOperations(values: Values): Operation[] {
  const [names, occurrences, kinds, errors, completed] = [3, 4, 6, 8, 10].map((i) =>
    itemsOf(values[i]),
  ) as [string[], number[], StepKind[], (Uint8Array | null)[], boolean[]]
  return names.map((name, i) => {
    const what = describeStep(name, occurrences[i] as number, kinds[i] as StepKind, {
      failed: errors[i] !== null,
      begun: completed[i] === false,
    })
    return {
      kind: 'step',
      before: `before ${what} is recorded`,
      after: `after ${what} is recorded`,
    }
  })
}

function describeStep(
  name: string,
  occurrence: number,
  kind: StepKind,
  { failed, begun }: { failed: boolean; begun: boolean },
): string {
  if (kind === 'compensation') return `the compensation of ${quoted(name, -occurrence)}`
  const what = `${kind} ${quoted(name, occurrence)}`
  if (begun) return `the intent of ${what}`
  return failed ? `the failure of ${what}` : what
}

function outcomeOperations(values: Values): Operation[] {
  const [statuses, headers, bodies] = [4, 5, 6].map((i) => itemsOf(values[i])) as [
    number[],
    Buffer[],
    (Buffer | null)[],
  ]
  return statuses.map((status, i) => ({
    kind: 'complete',
    before: 'before the answer is recorded',
    after: 'after the answer is recorded, before it is sent',
    outcome: { status, headers: headers[i] as Buffer, body: bodies[i] ?? null },
  }))
}

function quoted(name: string, occurrence: number): string {
  return occurrence === 1 ? `"${name}"` : `"${name}" (${occurrence})`
}

function itemsOf(value: Value | undefined): readonly unknown[] {
  return value instanceof PgArray ? value.items : []
}
