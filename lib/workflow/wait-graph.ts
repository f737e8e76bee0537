/** Decides, from who waits for whom, which places to lend and which waits can never end. */

import type { Blocked } from '../store/wait-store.ts'
import { OBJECT_QUEUE } from './define.ts'

/** What to do about executions that wait for each other. */
export type WaitDecision =
  | { kind: 'none' }
  /** Lend the lender's place in its queue to the borrower, which it waits for. */
  | { kind: 'lend'; lender: string; borrower: string }
  /** The wait of `victim` for `execution` can never end. */
  | { kind: 'deadlock'; victim: string; execution: string; circle: Blocked[] }

/**
 * The graph of executions that wait. An execution goes on when any of those that it waits for has ended, so a wait can
 * never end if none of the executions that can be reached from it is able to go on (Knapp, "Deadlock Detection in
 * Distributed Databases", 1987, the OR model).
 */
export class WaitGraph {
  readonly #nodes: ReadonlyMap<string, Blocked>

  constructor(nodes: readonly Blocked[]) {
    this.#nodes = new Map(nodes.map((node) => [node.id, node]))
  }

  /** Decides what to do, seen from an execution that has begun to wait, or that others wait for. */
  decide(id: string): WaitDecision {
    const start = this.#nodes.get(id)
    if (!start) return { kind: 'none' }
    // What a parent waits for runs in the parent's place, also if the queue would let it in later.
    const loan = this.#findLoan((lender, borrower) =>
      this.#reaches(lender, borrower, (node) => this.#awaitedBy(node)),
    )
    if (loan) return loan
    const reached = this.#reachedFrom(start, (node) => this.#successorsOf(node))
    if ([...reached].some((node) => this.#canGoOn(node))) return { kind: 'none' }
    const anyLoan = this.#findLoan(
      (lender, borrower) =>
        reached.has(lender) && this.#reaches(lender, borrower, (node) => this.#successorsOf(node)),
    )
    return anyLoan ?? this.#deadlock(reached)
  }

  /** A place that can be lent, of an execution that depends on the borrower. */
  #findLoan(
    dependsOn: (lender: Blocked, borrower: Blocked) => boolean,
  ): Extract<WaitDecision, { kind: 'lend' }> | undefined {
    const borrowers = [...this.#nodes.values()].filter(
      ({ place, isQueueOpen }) => place === 'key' || (place === 'queue' && !isQueueOpen),
    )
    for (const borrower of borrowers) {
      for (const lender of this.#nodes.values()) {
        if (mayLend(lender, borrower) && dependsOn(lender, borrower))
          return { kind: 'lend', lender: lender.id, borrower: borrower.id }
      }
    }
    return undefined
  }

  /** @param reached executions of which none can go on */
  #deadlock(reached: ReadonlySet<Blocked>): WaitDecision {
    const successors = (node: Blocked) => this.#successorsOf(node)
    // One that has lent its place gets it back when the borrower ends: to end its wait would be of no use before.
    const victims = [...reached]
      .filter(
        ({ isSuspended, place, awaits }) => isSuspended && place !== 'lent' && awaits.length > 0,
      )
      .filter((node) => this.#reaches(node, node, successors))
      .sort((a, b) =>
        a.createdAt === b.createdAt ? (a.id < b.id ? 1 : -1) : a.createdAt < b.createdAt ? 1 : -1,
      )
    for (const victim of victims) {
      const path = this.#path(victim)
      const execution = path[1]?.id ?? victim.id
      if (victim.awaits.includes(execution))
        return { kind: 'deadlock', victim: victim.id, execution, circle: path }
    }
    return { kind: 'none' }
  }

  /** The shortest circle through an execution, which begins with it. */
  #path(from: Blocked): Blocked[] {
    const before = new Map<Blocked, Blocked>()
    const queue = [from]
    for (let node = queue.shift(); node; node = queue.shift()) {
      for (const next of this.#successorsOf(node)) {
        if (next === from) {
          const path = [node]
          for (let at = node; at !== from; ) {
            at = before.get(at) as Blocked
            path.unshift(at)
          }
          return path
        }
        if (before.has(next)) continue
        before.set(next, node)
        queue.push(next)
      }
    }
    return []
  }

  /** Whether it can go on, or be let in, although nothing else ends. An execution that is not here has ended. */
  #canGoOn(node: Blocked): boolean {
    if (node.place === 'key' || node.place === 'lent') return false
    if (node.place === 'queue') return node.isQueueOpen
    if (!node.isSuspended || node.goesOn) return true
    return node.awaits.some((id) => !this.#nodes.has(id))
  }

  #successorsOf(node: Blocked): Blocked[] {
    if (node.place === 'key')
      return this.#all(
        ({ queue, lane, place }) => queue === node.queue && lane === node.lane && isInLane(place),
      )
    if (node.place === 'queue')
      return this.#all(
        ({ queue, place }) => queue === node.queue && (place === 'in' || place === 'lent'),
      )
    return this.#awaitedBy(node)
  }

  /** What a suspended execution waits for by itself, or has lent its place to. */
  #awaitedBy(node: Blocked): Blocked[] {
    if (!node.isSuspended) return []
    if (node.place === 'lent') return this.#all(({ lender }) => lender === node.id)
    return node.awaits.flatMap((id) => this.#nodes.get(id) ?? [])
  }

  #all(condition: (node: Blocked) => boolean): Blocked[] {
    return [...this.#nodes.values()].filter(condition)
  }

  #reaches(from: Blocked, to: Blocked, successors: (node: Blocked) => Blocked[]): boolean {
    return successors(from).some((next) => this.#reachedFrom(next, successors).has(to))
  }

  /** All that is reached from an execution, itself included. */
  #reachedFrom(from: Blocked, successors: (node: Blocked) => Blocked[]): Set<Blocked> {
    const reached = new Set([from])
    for (const node of reached) for (const next of successors(node)) reached.add(next)
    return reached
  }
}

/** Whether one execution's place is of use to the other. The lane of an object is never lent. */
function mayLend(lender: Blocked, borrower: Blocked): boolean {
  if (!lender.isSuspended || lender.place !== 'in' || lender.queue !== borrower.queue) return false
  if (borrower.place === 'queue') return true
  return lender.lane === borrower.lane && !borrower.queue?.startsWith(OBJECT_QUEUE)
}

function isInLane(place: Blocked['place']): boolean {
  return place === 'in' || place === 'queue' || place === 'lent'
}
