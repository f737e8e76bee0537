import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Files that start many processes, or run the cases of several frameworks. */
const SLOW = /\/(cli|conformance|examples|faults|promises|transactions)\/|\/chaos\./

/** Files that wait most of their time, for timeouts and retries. */
const WAITING =
  /\/(node\/recovery|workflow\/races|steps\/transaction|status\/status|engine\/worker|changing-code|dead-connections|p7-clocks-and-leases)\./

/**
 * Starts with the files that take long, so that none of them runs alone in the end, and spreads those that mostly
 * wait among them, so that the machine has something to do meanwhile. Vitest knows how long each took from an
 * earlier run only, and goes by their sizes in the first.
 */
export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    const waiting = sorted.filter(({ moduleId }) => WAITING.test(moduleId))
    const others = sorted.filter(({ moduleId }) => !WAITING.test(moduleId))
    const isSlow = ({ moduleId }: TestSpecification) => SLOW.test(moduleId)
    const ordered = [...others.filter(isSlow), ...others.filter((file) => !isSlow(file))]
    for (const [n, file] of waiting.entries()) ordered.splice(2 + n * 6, 0, file)
    return ordered
  }
}
