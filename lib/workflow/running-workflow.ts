/** Implements the workflow execution object: durable sleeps, signals, results of other workflows, patches. */

import type { z } from 'zod'
import { currentExecution, runInExecution } from '../engine/current-execution.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { type ExecutionDependencies, RunningExecution } from '../engine/running-execution.ts'
import { PawlError } from '../errors/index.ts'
import { type Duration, parseOptions } from '../options/parse-options.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { Deadlock } from '../store/wait-store.ts'
import type { PendingSignal, WorkflowStore } from '../store/workflow-store.ts'
import { deadlockError } from './blocked-waits.ts'
import { signalOptions, sleepOptions } from './option-schemas.ts'
import type { PendingWaits, WaitResult } from './pending-waits.ts'
import type { StartOptions } from './start-options.ts'
import type { Workflow } from './workflow.ts'
import type { SignalOptions, WorkflowExecution } from './workflow-execution.ts'
import type { WorkflowHandle } from './workflow-handle.ts'
import { unwrapOutcome } from './workflow-outcome.ts'

/** What the execution of a workflow needs in addition to that of a request. */
export interface RunningWorkflowDependencies {
  version: string | null
  /** Set if a wait must end with an error, because it is part of a circle. */
  deadlock: Deadlock | null
  waits: PendingWaits
  store: WorkflowStore
  /** Validates and encodes an input of this workflow. @throws PawlError `input-invalid`, `limit-exceeded` */
  encodeInput: (input: unknown) => Promise<Buffer>
  /** Reads the execution's signals of a name that no journal entry has consumed, in the order of arrival. */
  unreadSignals: (name: string) => AsyncIterable<PendingSignal>
  /** Reads the decrypted outcome of another execution; null if it has not ended. */
  readOutcome: (id: string) => Promise<Outcome | null>
  /** Reports a signal that does not match the schema of the wait. */
  onInvalidSignal: (signal: string, error: unknown) => void
  /** Decrypts and decodes the stored value of a signal. */
  decodeSignal: (name: string, value: Buffer | null) => unknown
}

/** The execution object of a workflow while an attempt runs in this process. */
export class RunningWorkflow extends RunningExecution implements WorkflowExecution {
  readonly version: string | null
  readonly #workflow: RunningWorkflowDependencies
  /** Signals that a wait of this attempt is about to consume. */
  readonly #claimedSignals = new Set<string>()
  /** By signal name, the waits for it in the order in which they began: the senders that each has refused. */
  readonly #waitersByName = new Map<string, Set<string>[]>()

  #deadlock: Deadlock | null
  #continue: (input: Buffer) => void = noop
  /** Resolves to the encoded input of the next life, when the code has asked for one. */
  readonly continuation = new Promise<Buffer>((resolve) => {
    this.#continue = resolve
  })

  constructor(dependencies: ExecutionDependencies, workflow: RunningWorkflowDependencies) {
    super(dependencies)
    this.#workflow = workflow
    this.#deadlock = workflow.deadlock
    this.version = workflow.version
  }

  async sleep(time: Duration): Promise<void> {
    const { ms } = parseOptions(sleepOptions, { ms: time }, 'sleep()')
    await this.#sleep({ ms })
  }

  async sleepUntil(date: Date): Promise<void> {
    if (!(date instanceof Date) || Number.isNaN(date.getTime())) {
      throw new PawlError(
        'invalid-option',
        'sleepUntil() was given no valid date.',
        'Pass a valid Date.',
      )
    }
    await this.#sleep({ until: date.getTime() })
  }

  async #sleep(end: { ms: number } | { until: number }): Promise<void> {
    const { journal } = this.dependencies
    this.validateCall('sleep', noop, 'sleep')
    const call = journal.call('sleep', 'sleep')
    if (call.entry?.completed)
      return void (await this.trackActive(journal.replay(call, call.entry)))
    const start = await this.trackActive(journal.recordStart(call, end))
    if ('ended' in start) return void journal.adopt(start.ended)
    const recorded = start.known as typeof end
    const deadline =
      'until' in recorded
        ? BigInt(recorded.until) * 1000n
        : BigInt(start.at) + BigInt(recorded.ms) * 1000n
    await this.#workflow.waits.wait({
      deadline,
      topic: null,
      check: async () => {
        if (journal.databaseTime < deadline) return null
        return waitResultOf(
          journal,
          await journal.record(call, { output: undefined }, 0),
          undefined,
        )
      },
    })
  }

  async signal<T = unknown>(name: string, options?: SignalOptions<T>): Promise<T | undefined> {
    const { journal } = this.dependencies
    const { timeout, schema } = parseOptions(signalOptions, options, `signal "${name}"`)
    this.validateCall(name, noop, 'signal')
    const call = journal.call(name, 'signal')
    if (call.entry?.completed)
      return (await this.trackActive(journal.replay(call, call.entry))) as T
    let deadline: bigint | null = null
    if (timeout !== undefined) {
      const start = await this.trackActive(journal.recordStart(call, { ms: timeout }))
      if ('ended' in start) return journal.adopt(start.ended) as T
      deadline = BigInt(start.at) + BigInt((start.known as { ms: number }).ms) * 1000n
    }
    const started = performance.now()
    const refusedSenders = new Set<string>()
    const queue = this.#waitersByName.get(name) ?? []
    this.#waitersByName.set(name, queue)
    queue.push(refusedSenders)
    const check = async (): Promise<WaitResult | null> => {
      const found = await this.#nextSignal(name, schema, queue, refusedSenders)
      if (found) {
        const { sender, value } = found
        try {
          const tookMs = performance.now() - started
          const existing = await journal.recordWith(call, value, (record) =>
            this.#workflow.store.consumeSignal({ ...record, signal: name, sender, tookMs }),
          )
          return existing === undefined ? null : waitResultOf(journal, existing, value)
        } finally {
          this.#claimedSignals.delete(`${name}\0${sender}`)
        }
      }
      if (deadline === null || journal.databaseTime < deadline) return null
      return waitResultOf(journal, await journal.record(call, { output: undefined }, 0), undefined)
    }
    try {
      return (await this.#workflow.waits.wait({ deadline, topic: this.id, check })) as T | undefined
    } finally {
      queue.splice(queue.indexOf(refusedSenders), 1)
    }
  }

  /**
   * Finds the first signal of this name that matches the schema, and that no other wait of this attempt is
   * about to consume or, having begun earlier, comes first for.
   * @param queue for each wait for this name, in the order in which they began, the senders it has refused
   * @param refusedSenders the entry of this wait in `queue`
   */
  async #nextSignal(
    name: string,
    schema: z.ZodType | undefined,
    queue: readonly Set<string>[],
    refusedSenders: Set<string>,
  ) {
    for await (const { sender, value } of this.#workflow.unreadSignals(name)) {
      const claim = `${name}\0${sender}`
      const earlierWaits = queue.slice(0, queue.indexOf(refusedSenders))
      const belongsToEarlierWait = earlierWaits.some(
        (refusedByOther) => !refusedByOther.has(sender),
      )
      if (this.#claimedSignals.has(claim) || refusedSenders.has(sender) || belongsToEarlierWait)
        continue
      const decoded = this.#workflow.decodeSignal(name, value)
      this.#claimedSignals.add(claim)
      if (!schema) return { sender, value: decoded }
      const result = await schema.safeParseAsync(decoded)
      if (result.success) return { sender, value: result.data as unknown }
      this.#claimedSignals.delete(claim)
      refusedSenders.add(sender)
      this.#workflow.onInvalidSignal(name, result.error)
    }
    return null
  }

  /** Waits durably until another execution has ended, and returns its result or throws its error. */
  async awaitResult(id: string, name: string): Promise<unknown> {
    const { journal } = this.dependencies
    this.validateCall('result', noop, 'result')
    // Retention looks for this entry by its name, see `isKept` in the store's SQL fragments.
    const call = journal.call(`result ${name} ${id}`, 'result')
    if (call.entry?.completed) return this.trackActive(journal.replay(call, call.entry))
    const deadlock = this.#takeDeadlock(id)
    const check = async (): Promise<WaitResult | null> => {
      const outcome = await this.#workflow.readOutcome(id)
      if (!outcome && !deadlock) return null
      try {
        if (!outcome) throw deadlockError(deadlock as Deadlock)
        const output = unwrapOutcome(name, outcome)
        return waitResultOf(journal, await journal.record(call, { output }, 0), output)
      } catch (error) {
        const existing = await journal.record(call, { error: error as Error }, 0)
        return existing ? waitResultOf(journal, existing, undefined) : { error }
      }
    }
    const isCreatedHere = this.hasCreated(id)
    return this.#workflow.waits.wait({
      ...{ deadline: null, topic: id, check },
      execution: { id, isKept: isCreatedHere },
    })
  }

  /** Why the next wait for an execution must end with an error, if it must. It is told once. */
  #takeDeadlock(id: string): Deadlock | undefined {
    const deadlock = this.#deadlock
    if (deadlock?.execution !== id) return undefined
    this.#deadlock = null
    return deadlock
  }

  async continueAs(input: unknown): Promise<never> {
    this.validateCall('continueAs', noop, 'continuation')
    const { haltReason } = this.dependencies.journal
    if (haltReason) throw haltReason
    const bytes = await this.trackActive(this.#workflow.encodeInput(input))
    this.#continue(bytes)
    // Counts as running, so that the execution is not suspended meanwhile.
    return this.trackActive(new Promise<never>(() => {}))
  }

  start<Input, Output>(
    workflow: Workflow<Input, Output>,
    input: Input,
    options?: StartOptions,
  ): Promise<WorkflowHandle<Output>> {
    const begin = () => workflow.start(input, options)
    // A library may have lost the async context; then the start must still belong to this execution.
    return currentExecution() === this ? begin() : runInExecution(this, begin)
  }

  async patched(change: string): Promise<boolean> {
    this.validateCall(change, noop, 'patch')
    return this.trackActive(this.dependencies.journal.isPatched(`patched ${change}`))
  }

  /** @throws PawlError `no-state`, since only handlers of objects have state */
  get state(): unknown {
    throw new PawlError(
      'no-state',
      'execution.state was used in a workflow, which has no state.',
      'Make it a handler of an object: pawl.object(name, { handlers }).',
    )
  }

  /** Whether a call of a handler of this object and key would have to wait until this execution has ended. */
  blocksCallsOf(_at: { object: string; key: string }): boolean {
    return false
  }

  override get unkeepableIsFinal(): boolean {
    return false
  }

  protected override trackActive<T>(running: Promise<T>): Promise<T> {
    return this.#workflow.waits.trackActive(running)
  }
}

/**
 * The result of a wait whose journal entry has been written.
 * @param existing the entry that another attempt had recorded before, which then counts; null: ours was written
 * @param value the value of our entry
 */
function waitResultOf(
  journal: Journal,
  existing: Parameters<Journal['adopt']>[0] | null,
  value: unknown,
): WaitResult {
  if (!existing) return { value }
  try {
    return { value: journal.adopt(existing) }
  } catch (error) {
    return { error }
  }
}

const noop = () => {}
