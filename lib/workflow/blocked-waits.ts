/** Looks at executions that begin to wait for others: lends places of queues, and ends waits in a circle. */

import { setTimeout as sleep } from 'node:timers/promises'
import { PawlError } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import type { Blocked, Deadlock, WaitStore } from '../store/wait-store.ts'
import { WaitGraph } from './wait-graph.ts'

/** The pause before another look where a rate limit forbids to lend a place, in ms. */
const RETRY_MS = 1000

/** How often one look is repeated at most: each time something has changed since the walk. */
const MAX_LOOKS = 20

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

  constructor(dependencies: BlockedWaitsDependencies) {
    this.#dependencies = dependencies
  }

  /** Looks at an execution that has begun to wait for others, or that others wait for. Never rejects. */
  async look(id: string): Promise<void> {
    const { store, isStopped, announce, logger } = this.#dependencies
    try {
      for (let looks = 1; looks <= MAX_LOOKS && !isStopped(); looks++) {
        const nodes = await store.walk(id)
        const decision = new WaitGraph(nodes).decide(id)
        if (decision.kind === 'none') return
        if (decision.kind === 'deadlock') {
          const { victim, execution, circle } = decision
          const names = circle.map(describe)
          logger.warn('executions wait for each other in a circle; the wait of one has ended', {
            victim,
            circle: names,
          })
          if (!(await store.breakCircle(victim, { execution, circle: names }))) continue
          return announce()
        }
        if (await store.lend(decision.lender, decision.borrower)) announce()
        else await sleep(RETRY_MS, undefined, { ref: false })
      }
    } catch (error) {
      logger.debug(
        'looking at who waits for whom failed; the next check of the queues repeats it',
        { error },
      )
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
