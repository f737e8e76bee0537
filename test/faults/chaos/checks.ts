/** What must be true after the chaos. Each check returns what is wrong, in words. */
import type pg from 'pg'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { QueueStore } from '../../../lib/store/queue-store.ts'
import type { Cluster, Stop } from './cluster.ts'
import type { Acknowledged, Load } from './load.ts'
import { Random } from './random.ts'

/** How long after a step was recorded an attempt may begin that has not read it, in ms: on a busy machine. */
const READ_MARGIN_MS = 3000

/** A finished execution, as the view shows it. */
interface Ended {
  id: string
  kind: string
  name: string
  key: string
  scope: string
  parent: string | null
  status: string
  /** How long it took, in ms. */
  ms: number
  // biome-ignore lint/suspicious/noExplicitAny: what the workflow returned
  result: any
  // biome-ignore lint/suspicious/noExplicitAny: what it was started with
  input: any
}

interface Recorded {
  execution: string
  execution_name: string
  step: string
  kind: string
  output: unknown
  attempt: number
  at: Date
}

interface Effect {
  execution: string
  step: string
  attempt: number
  nonce: string
  pid: number
  at: Date
}

export interface Evidence {
  /** Of Pawl's database. */
  pool: pg.Pool
  /** Of the ledger's. */
  ledger: pg.Pool
  load: Load
  cluster: Cluster
}

/** All that is known at the end. */
export interface Facts {
  executions: Ended[]
  recorded: Recorded[]
  effects: Effect[]
  /** When each attempt began, by execution and number. */
  attempts: Map<string, { at: Date; pid: number }[]>
  stops: readonly Stop[]
  acknowledged: readonly Acknowledged[]
}

export async function readFacts({ pool, ledger, load, cluster }: Evidence): Promise<Facts> {
  const executions = await pool.query(
    'select id, kind, name, key, scope, parent, status, result, input, (extract(epoch from duration) * 1000)::float8 as ms from pawl.execution_log',
  )
  const recorded = await pool.query(
    `select execution_id as execution, execution_name, name as step, kind, output, attempt, completed_at as at
     from pawl.step_log where status = 'done'`,
  )
  const effects = await ledger.query('select * from effects order by at')
  const attempts = new Map<string, { at: Date; pid: number }[]>()
  for (const { execution, attempt, at, pid } of (await ledger.query('select * from attempts')).rows)
    group(attempts, `${execution} ${attempt}`).push({ at, pid })
  return {
    executions: executions.rows,
    recorded: recorded.rows,
    effects: effects.rows,
    attempts,
    stops: cluster.stops,
    acknowledged: load.acknowledged,
  }
}

/** Each recorded step ran, was recorded as it ran, and ran in no attempt that knew of it; none ran twice in one. */
export function checkEffects({ recorded, effects, attempts, stops }: Facts): string[] {
  const wrong: string[] = []
  const runs = new Map<string, Effect[]>()
  for (const effect of effects) group(runs, `${effect.execution} ${effect.step}`).push(effect)
  for (const [name, all] of runs) {
    if (all[0]?.step === 'undo') continue
    const byAttempt = new Set(all.map(({ attempt }) => attempt))
    if (byAttempt.size < all.length) wrong.push(`${name} ran twice in one attempt`)
    if (all[0]?.step === 'at most once' && all.length > 1)
      wrong.push(`${name} ran ${all.length} times`)
  }
  for (const { execution, step, kind, output, attempt, at } of recorded) {
    const all = runs.get(`${execution} ${step}`)
    if (kind !== 'step' || !all) continue
    if (!all.some(({ nonce }) => nonce === output))
      wrong.push(`${execution} ${step} recorded ${output}, which is no run of it`)
    for (const again of all) {
      if (again.attempt <= attempt) continue
      const known = (attempts.get(`${execution} ${again.attempt}`) ?? []).filter(
        (begun) =>
          begun.pid === again.pid &&
          begun.at.getTime() > at.getTime() + READ_MARGIN_MS &&
          // A process may be stopped between reading its journal and beginning.
          !stops.some(({ pid, from, to }) => pid === begun.pid && from <= +begun.at && to >= +at),
      )
      if (known.length > 0)
        wrong.push(
          `${execution} ${step}, recorded in attempt ${attempt}, ran in attempt ${again.attempt}`,
        )
    }
  }
  return wrong
}

/** Each execution has ended as its input says, and each that was acknowledged is there. */
export function checkOutcomes({ executions, recorded, effects, acknowledged }: Facts): string[] {
  const wrong: string[] = []
  const byId = new Map(executions.map((execution) => [execution.id, execution]))
  const cancels = new Set(
    acknowledged
      .filter(({ operation: { op } }) => op === 'cancel' || op === 'cancelParent')
      .map(({ operation }) => operation.target),
  )
  const sent = new Map(acknowledged.map(({ operation }) => [operation.id, operation]))
  for (const { id, name, key, parent, status, result, input } of executions) {
    const label = `${name} ${key} (${id})`
    const startedBy = parent === null ? undefined : byId.get(parent)
    const mayBeCancelled = cancels.has(key) || startedBy?.status === 'cancelled'
    if (status === 'cancelled' && mayBeCancelled) continue
    if (status !== 'done') {
      wrong.push(`${label} is ${status}`)
      continue
    }
    const expected: Record<string, () => boolean> = {
      job: () => result === input.n * 3,
      grandchild: () => result === input.n * 2,
      child: () => result === input.n * 2,
      parent: () => result === input.n * 4 + 2,
      drip: () => result === input + 1,
      twice: () => result === input * 2,
      wide: () =>
        result.n === input && result.doubled === input * 2 && typeof result.signal === 'number',
      ring: () => ['broken', 'followed'].includes(result),
      'tight ring': () => ['broken', 'followed'].includes(result),
      'peer.meet': () => ['broken', 'followed'].includes(result),
    }
    if (expected[name]?.() === false) wrong.push(`${label} ended with ${JSON.stringify(result)}`)
  }
  for (const { operation, answer } of acknowledged) {
    const { result } = answer.json
    const started = [result].flat().filter((id) => typeof id === 'string' && id.length === 36)
    for (const id of started)
      if (!byId.has(id)) wrong.push(`${operation.id} started ${id}, which is not there`)
    if (operation.op !== 'ring' && operation.op !== 'tightRing') continue
    // Each member of a circle waits for the next one: it cannot end unless the wait of one is broken.
    if (!started.some((id) => byId.get(id)?.result === 'broken'))
      wrong.push(`${operation.id} ended, and was not broken`)
  }
  const undone = new Set(
    effects.filter(({ step }) => step === 'undo').map(({ execution }) => execution),
  )
  const worked = recorded.filter(({ step, kind }) => step === 'work' && kind === 'step')
  for (const { execution } of worked) {
    const isCancelled = byId.get(execution)?.status === 'cancelled'
    if (isCancelled !== undone.has(execution))
      wrong.push(
        `${execution} is ${isCancelled ? '' : 'not '}cancelled, and was ${isCancelled ? 'not ' : ''}undone`,
      )
  }
  for (const { key, name } of executions.filter(({ name }) => name === 'job')) {
    if (sent.get(key)?.op === 'order' && (sent.get(key)?.n ?? 0) % 4 === 0)
      wrong.push(`${name} ${key} was started in a transaction that was rolled back`)
  }
  return wrong
}

/** What is exactly once is in the app's tables once, and what was rolled back is not there. */
export async function checkTransactions({ pool }: Evidence, facts: Facts): Promise<string[]> {
  const wrong: string[] = []
  const facts1 = await pool.query('select execution, count(*)::int as n from facts group by 1')
  const wide = facts.executions.filter(({ name }) => name === 'wide').map(({ id }) => id)
  const once = new Map(facts1.rows.map(({ execution, n }) => [execution, n]))
  for (const id of wide) if (once.get(id) !== 1) wrong.push(`wide ${id} has ${once.get(id)} rows`)
  const orders = await pool.query('select id, count(*)::int as n from orders group by 1')
  const jobs = new Set(facts.executions.filter(({ name }) => name === 'job').map(({ key }) => key))
  for (const { id, n } of orders.rows) {
    if (n !== 1) wrong.push(`${id} has ${n} rows`)
    if (!jobs.has(id)) wrong.push(`${id} was committed, and its job was not started`)
  }
  for (const { operation, answer } of facts.acknowledged.filter(
    ({ operation: { op } }) => op === 'order',
  )) {
    const isThere = orders.rows.some(({ id }) => id === operation.id)
    if (isThere !== (answer.json.result !== 'rolled back'))
      wrong.push(`${operation.id}: ${answer.json.result}`)
  }
  return wrong
}

/** The counters have counted each call once, one after the other. */
export async function checkCounters({ pool }: Evidence, facts: Facts): Promise<string[]> {
  const wrong: string[] = []
  const { rows } = await pool.query(
    `select key, value::text::int as value from pawl.state_log where object = 'counter'`,
  )
  for (const { key, value } of rows) {
    const calls = facts.executions.filter(
      ({ name, scope }) => name === 'counter.add' && scope === key,
    )
    const results = calls.map(({ result }) => result as number).sort((a, b) => a - b)
    if (value !== calls.length || results.some((result, n) => result !== n + 1))
      wrong.push(
        `counter ${key} is ${value} after ${calls.length} calls, which returned ${results}`,
      )
  }
  return wrong
}

/** The executions of one key began in the order in which their client had started them. */
export async function checkOrder({ ledger }: Evidence, facts: Facts): Promise<string[]> {
  const wrong: string[] = []
  const { rows } = await ledger.query('select execution, first::int as first from holds')
  const first = new Map(rows.map(({ execution, first }) => [execution, first]))
  const last = new Map<string, number>()
  for (const { operation, answer } of facts.acknowledged) {
    const { op, key = '' } = operation
    if (op !== 'job' || !key.startsWith('ordered')) continue
    const began = first.get(answer.json.result)
    if (began === undefined) wrong.push(`${operation.id} has never begun`)
    else if (began < (last.get(key) ?? 0))
      wrong.push(`${operation.id} began before the one before it`)
    else last.set(key, began)
  }
  return wrong
}

/** Each answer is given again, byte for byte. */
export async function checkReplays({ load }: Evidence, { acknowledged }: Facts): Promise<string[]> {
  const wrong: string[] = []
  const random = new Random(1)
  for (const { path, operation, answer } of acknowledged) {
    const again = await load.send(random, path, operation)
    if (again?.status !== answer.status || again.text !== answer.text)
      wrong.push(`${operation.id} was answered with ${answer.text}, and then with ${again?.text}`)
  }
  return wrong
}

/** Nothing is left: no wakeups, no places, no violations; and the counts are right without being corrected. */
export async function checkRemains({ pool, ledger, cluster }: Evidence): Promise<string[]> {
  const wrong: string[] = [...cluster.failures]
  const violations = await ledger.query('select what from violations')
  wrong.push(...violations.rows.map(({ what }) => what))
  const held = await ledger.query('select execution from holds where phase in (1, 2, 3)')
  wrong.push(...held.rows.map(({ execution }) => `${execution} has never let go`))
  const wakeups = await pool.query('select execution_id, handler, place from pawl.wakeups')
  wrong.push(...wakeups.rows.map((row) => `a wakeup is left: ${JSON.stringify(row)}`))
  const queues = new QueueStore(new NodePostgres(pool, 10_000, false), 'pawl')
  const { rows } = await pool.query('select name, held, waiting, is_limited from pawl.queues')
  for (const { name, held, waiting, is_limited } of rows) {
    if (is_limited && (held !== 0 || waiting !== 0))
      wrong.push(`${name} counts ${held} and ${waiting}`)
    const { corrections, open } = await queues.mend(name)
    if (corrections.length + open.length > 0)
      wrong.push(`${name} was mended: ${JSON.stringify({ corrections, open })}`)
  }
  const lanes = await pool.query(
    'select queue, key from pawl.lanes where held <> 0 or waiting <> 0',
  )
  wrong.push(...lanes.rows.map(({ queue, key }) => `lane ${key} of ${queue} is not empty`))
  for (const warning of cluster.warnings) {
    const { message } = warning
    if (/count of a queue|parked|gave up|cannot be read/.test(message))
      wrong.push(JSON.stringify(warning))
  }
  return wrong
}

function group<K, V>(groups: Map<K, V[]>, key: K): V[] {
  const known = groups.get(key)
  if (known) return known
  const fresh: V[] = []
  groups.set(key, fresh)
  return fresh
}
