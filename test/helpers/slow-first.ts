import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Files that start many processes, or run the cases of several frameworks. */
const SLOW = /\/(cli|conformance|examples|faults|promises|transactions)\/|\/chaos\./

/**
 * Starts with the files that take long, so that none of them runs alone in the end. Vitest knows how long each took
 * from an earlier run only, and goes by their sizes in the first.
 */
export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    const isSlow = ({ moduleId }: TestSpecification) => SLOW.test(moduleId)
    return [...sorted.filter(isSlow), ...sorted.filter((file) => !isSlow(file))]
  }
}
