import { PgArray, type Value } from '../store/database/pg-array.ts'
import { statements } from '../store/sql/execution-statements.ts'
import { stepStatements } from '../store/sql/step-statements.ts'
import type { StepKind } from '../store/step-store.ts'
import type { Outcome } from '../store/execution-store.ts'

/** What a statement of Pawl's does to an execution. */
export interface Operation {
  /** What operations are numbered by. */
  kind: string
  /** The moments before the statement is sent, and after it has committed, in words. */
  before: string
  after: string
  /** The id of an execution that is claimed. */
  claims?: string
  /** What is about to be the outcome. */
  outcome?: Outcome
}

type Values = readonly (Value | undefined)[]
type Read = (values: Values) => Operation[]

/**
 * Tells by its text what a statement of Pawl's does. A batch is several operations; a statement that
 * changes no execution is none.
 *
 * @param schema the schema's name, as given by the user
 */
export function operationReader(schema: string): (sql: string, values: Values) => Operation[] {
  const sql = statements(`"${schema}"`)
  const steps = stepStatements(`"${schema}"`)
  const readers = new Map<string, Read>([
    [sql.claim, readClaims],
    [sql.takeOver, () => [TAKE_OVER]],
    [sql.restart, () => [TAKE_OVER]],
    [steps.record, readSteps],
    [steps.recordGuarded, readSteps],
    [steps.giveUp, () => [GIVING_UP]],
    [sql.complete, readOutcomes],
    [sql.release, (values) => items(values[0]).map(() => RELEASE)],
  ])
  return (sql, values) => readers.get(sql)?.(values) ?? []
}

/**
 * Tells Pawl's entry in a transaction, its last statement, from the app's own. It is given back as what the
 * transaction is: `transaction "record order"`.
 */
export function entryReader(
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

const GIVING_UP: Operation = {
  kind: 'step',
  before: 'before the decision to give up is recorded',
  after: 'after the decision to give up is recorded',
}

function readClaims(values: Values): Operation[] {
  return items(values[0]).map((id) => ({
    kind: 'claim',
    before: 'before the request is claimed',
    after: 'after the request is claimed, before its handler runs',
    claims: id as string,
  }))
}

function readSteps(values: Values): Operation[] {
  const [names, occurrences, kinds, errors, completed] = [3, 4, 6, 8, 10].map((i) =>
    items(values[i]),
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

function readOutcomes(values: Values): Operation[] {
  const [statuses, headers, bodies] = [4, 5, 6].map((i) => items(values[i])) as [
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

function items(value: Value | undefined): readonly unknown[] {
  return value instanceof PgArray ? value.items : []
}
