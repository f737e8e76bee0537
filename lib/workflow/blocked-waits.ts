/** Looks at executions that begin to wait for others: lends places of queues, and ends waits in a circle. */

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { retryWhileUnavailable } from '../engine/retry/retry-while-unavailable.ts'
import { PawlError } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import type { Blocked, Deadlock, WaitStore } from '../store/wait-store.ts'
import { WaitGraph } from './wait-graph.ts'

/** The pause before another look where a rate limit forbids to lend a place, in ms. */
const RETRY_MS = 1000

/** How often one look is repeated at most: each time something has changed since the walk. */
const MAX_LOOKS = 20

/** How often executions are looked at whose process died before it had looked, in ms. */
const SWEEP_MS = 60_000

/** How many executions one sweep looks at: with many that wait, sweeps take turns. */
const MAX_SWEPT = 100

/** Lower than the id of any execution. */
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

/** What {@link BlockedWaits} needs. */
export interface BlockedWaitsDependencies {
  store: WaitStore
  /** Tells all workers that an execution is due. */
  announce: () => void
  isStopped: () => boolean
  logger: Logger
}

/**
 * Handles waits that may never end by themselves. Whoever begins to wait has committed that before it looks, so that of
 * several in a circle the last one sees all.
 */
export class BlockedWaits {
  readonly #dependencies: BlockedWaitsDependencies
  #sweptAt = Number.NEGATIVE_INFINITY
  #isSweeping = false
  /** The id at which the last sweep ended. Random at first, so that processes begin at different ones. */
  #sweptTo: string = randomUUID()

  constructor(dependencies: BlockedWaitsDependencies) {
    this.#dependencies = dependencies
  }

  /** Looks at an execution that has begun to wait for others, or that others wait for. Never rejects. */
  async look(id: string): Promise<void> {
    const { store, isStopped, announce, logger } = this.#dependencies
    const untilAvailable = <T>(operation: () => Promise<T>) =>
      retryWhileUnavailable(operation, isStopped)
    try {
      for (let looks = 1; looks <= MAX_LOOKS && !isStopped(); looks++) {
        const nodes = await untilAvailable(() => store.walk(id))
        const decision = new WaitGraph(nodes).decide(id)
        if (decision.kind === 'none') return
        if (decision.kind === 'deadlock') {
          const { victim, execution, circle } = decision
          const names = circle.map(describe)
          const deadlock = { execution, circle: names }
          if (!(await untilAvailable(() => store.breakCircle(victim, deadlock)))) continue
          logger.warn('executions wait for each other in a circle; the wait of one ends', {
            victim,
            circle: names,
          })
          return announce()
        }
        const { lender, borrower } = decision
        if (await untilAvailable(() => store.lend(lender, borrower))) announce()
        else await sleep(RETRY_MS, undefined, { ref: false })
      }
    } catch (error) {
      logger.debug('looking at who waits for whom failed; a sweep repeats it', { error })
    }
  }

  /**
   * From time to time looks at executions that wait for others, because the process in which one began to wait may
   * have died before it looked. Never rejects.
   */
  async sweep(): Promise<void> {
    if (this.#isSweeping || performance.now() - this.#sweptAt < SWEEP_MS) return
    this.#isSweeping = true
    this.#sweptAt = performance.now()
    const { store, logger } = this.#dependencies
    try {
      const ids = await store.listWaiting(this.#sweptTo, MAX_SWEPT)
      if (ids.length < MAX_SWEPT)
        ids.push(...(await store.listWaiting(FIRST_ID, MAX_SWEPT - ids.length)))
      this.#sweptTo = ids.at(-1) ?? this.#sweptTo
      for (const id of new Set(ids)) await this.look(id)
    } catch (error) {
      this.#sweptAt = Number.NEGATIVE_INFINITY
      logger.debug('listing the executions that wait failed; the next sweep repeats it', { error })
    } finally {
      this.#isSweeping = false
    }
  }
}

/** The error of a wait that can never end. */
export function deadlockError({ circle }: Deadlock): PawlError {
  return new PawlError(
    'deadlock',
    `Executions wait for each other in a circle: ${[...circle, circle[0]].join(' waits for ')}.`,
    'Start without waiting for the result, let a third execution wait for both, or catch the error.',
  )
}

function describe({ kind, name, scope, key }: Blocked): string {
  return `${kind} ${name} ${JSON.stringify(kind === 'object' ? scope : key)}`
}
