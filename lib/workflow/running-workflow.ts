import type { z } from 'zod'
import { currentExecution, runAs } from '../engine/current-execution.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { type ExecutionParts, RunningExecution } from '../engine/running-execution.ts'
import { PawlError } from '../errors/index.ts'
import { type Duration, parseOptions } from '../options/parse-options.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { Signal, WorkflowStore } from '../store/workflow-store.ts'
import type { WorkflowHandle } from './workflow-handle.ts'
import { signalOptions, sleepOptions } from './option-schemas.ts'
import { resultOf } from './workflow-outcome.ts'
import type { StartOptions } from './start-options.ts'
import type { Arrived, Waits } from './pending-waits.ts'
import type { Workflow } from './workflow.ts'
import type { SignalOptions, WorkflowExecution } from './workflow-execution.ts'

/** What a workflow's execution needs besides. */
export interface WorkflowParts {
  version: string | null
  waits: Waits
  store: WorkflowStore
  /** Its signals of that name that no entry has taken. */
  unread: (name: string) => Promise<Signal[]>
  /** What is stored of another execution's end; null if it has not ended. */
  outcomeOf: (id: string) => Promise<Outcome | null>
  /** Says that a signal was refused. */
  onRefused: (signal: string, error: unknown) => void
  /** Values of signals, as they are stored. */
  openSignal: (name: string, value: Buffer | null) => unknown
}

/** The WorkflowExecution of an attempt that is running here. */
export class RunningWorkflow extends RunningExecution implements WorkflowExecution {
  readonly version: string | null
  readonly #own: WorkflowParts
  /** Signals that a wait of this attempt is about to take. */
  readonly #claimed = new Set<string>()
  /** Waits for signals of a name, in their order: what each has refused. */
  readonly #lines = new Map<string, Set<string>[]>()

  constructor(parts: ExecutionParts, own: WorkflowParts) {
    super(parts)
    this.#own = own
    this.version = own.version
  }

  async sleep(time: Duration): Promise<void> {
    const { ms } = parseOptions(sleepOptions, { ms: time }, 'sleep()')
    await this.#sleep({ ms })
  }

  async sleepUntil(date: Date): Promise<void> {
    if (!(date instanceof Date) || Number.isNaN(date.getTime())) {
      throw new PawlError('invalid-option', 'sleepUntil() was given no date.', 'Give a valid Date.')
    }
    await this.#sleep({ until: date.getTime() })
  }

  async #sleep(how: { ms: number } | { until: number }): Promise<void> {
    const { journal } = this.parts
    this.checkUse('sleep', noop, 'sleep')
    const use = journal.use('sleep', 'sleep')
    if (use.entry?.completed) return void (await this.track(journal.replay(use, use.entry)))
    const begun = await this.track(journal.begin(use, how))
    if ('ended' in begun) return void journal.adopt(begun.ended)
    const known = begun.known as typeof how
    const deadline =
      'until' in known ? BigInt(known.until) * 1000n : BigInt(begun.at) + BigInt(known.ms) * 1000n
    await this.#own.waits.wait({
      deadline,
      topic: null,
      look: async () => {
        if (journal.time < deadline) return null
        return adopted(journal, await journal.record(use, { output: undefined }, 0), undefined)
      },
    })
  }

  async signal<T = unknown>(name: string, options?: SignalOptions<T>): Promise<T | undefined> {
    const { journal } = this.parts
    const { timeout, schema } = parseOptions(signalOptions, options, `signal "${name}"`)
    this.checkUse(name, noop, 'signal')
    const use = journal.use(name, 'signal')
    if (use.entry?.completed) return (await this.track(journal.replay(use, use.entry))) as T
    let deadline: bigint | null = null
    if (timeout !== undefined) {
      const begun = await this.track(journal.begin(use, { ms: timeout }))
      if ('ended' in begun) return journal.adopt(begun.ended) as T
      deadline = BigInt(begun.at) + BigInt((begun.known as { ms: number }).ms) * 1000n
    }
    const started = performance.now()
    const refused = new Set<string>()
    const line = this.#lines.get(name) ?? []
    this.#lines.set(name, line)
    line.push(refused)
    const look = async (): Promise<Arrived | null> => {
      const found = await this.#unread(name, schema, line, refused)
      if (found) {
        const { sender, value } = found
        try {
          const tookMs = performance.now() - started
          const other = await journal.recordBy(use, value, (record) =>
            this.#own.store.takeSignal({ ...record, signal: name, sender, tookMs }),
          )
          return other === undefined ? null : adopted(journal, other, value)
        } finally {
          this.#claimed.delete(`${name}\0${sender}`)
        }
      }
      if (deadline === null || journal.time < deadline) return null
      return adopted(journal, await journal.record(use, { output: undefined }, 0), undefined)
    }
    try {
      return (await this.#own.waits.wait({ deadline, topic: this.id, look })) as T | undefined
    } finally {
      line.splice(line.indexOf(refused), 1)
    }
  }

  /**
   * The first signal of this name that fits, that no other wait is about to take, and that none which began
   * to wait before would take.
   * @param line of each wait for this name, in their order, the senders of those that it has refused
   * @param refused of this wait
   */
  async #unread(
    name: string,
    schema: z.ZodType | undefined,
    line: readonly Set<string>[],
    refused: Set<string>,
  ) {
    for (const { sender, value } of await this.#own.unread(name)) {
      const claim = `${name}\0${sender}`
      const before = line.slice(0, line.indexOf(refused))
      const isOthers = before.some((others) => !others.has(sender))
      if (this.#claimed.has(claim) || refused.has(sender) || isOthers) continue
      const opened = this.#own.openSignal(name, value)
      this.#claimed.add(claim)
      if (!schema) return { sender, value: opened }
      const result = await schema.safeParseAsync(opened)
      if (result.success) return { sender, value: result.data as unknown }
      this.#claimed.delete(claim)
      refused.add(sender)
      this.#own.onRefused(name, result.error)
    }
    return null
  }

  /** Waits for the end of another execution. */
  async resultOf(id: string, name: string): Promise<unknown> {
    const { journal } = this.parts
    this.checkUse('result', noop, 'result')
    const use = journal.use(`result ${name}`, 'result')
    if (use.entry?.completed) return this.track(journal.replay(use, use.entry))
    const look = async (): Promise<Arrived | null> => {
      const outcome = await this.#own.outcomeOf(id)
      if (!outcome) return null
      try {
        const output = resultOf(name, outcome)
        return adopted(journal, await journal.record(use, { output }, 0), output)
      } catch (error) {
        const other = await journal.record(use, { error: error as Error }, 0)
        return other ? adopted(journal, other, undefined) : { error }
      }
    }
    return this.#own.waits.wait({ deadline: null, topic: id, execution: id, look })
  }

  start<Input, Output>(
    workflow: Workflow<Input, Output>,
    input: Input,
    options?: StartOptions,
  ): Promise<WorkflowHandle<Output>> {
    const begin = () => workflow.start(input, options)
    // Also where a library has lost the async context.
    return currentExecution() === this ? begin() : runAs(this, begin)
  }

  async patched(change: string): Promise<boolean> {
    const { journal } = this.parts
    this.checkUse(change, noop, 'patch')
    const name = `patched ${change}`
    // Asked before the name is used: an entry that is there has not been used either.
    if (!journal.has(name) && journal.isReplaying) return false
    return this.entry('patch', name, async () => true)
  }

  /** @throws PawlError `no-state`: only objects keep something */
  get state(): unknown {
    throw new PawlError(
      'no-state',
      'execution.state was used in a workflow, which keeps none.',
      'Make it a handler of an object: pawl.object(name, { handlers }).',
    )
  }

  /** Whether a call of that object and key would wait for this execution to end. */
  holds(_at: { object: string; key: string }): boolean {
    return false
  }

  protected override track<T>(running: Promise<T>): Promise<T> {
    return this.#own.waits.track(running)
  }
}

function adopted(
  journal: Journal,
  other: Parameters<Journal['adopt']>[0] | null,
  value: unknown,
): Arrived {
  if (!other) return { value }
  try {
    return { value: journal.adopt(other) }
  } catch (error) {
    return { error }
  }
}

const noop = () => {}
