import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Seconds that each file took when `npx tsx test/durations.ts` was last run. */
const DURATIONS: Record<string, number> = JSON.parse(
  readFileSync(new URL('durations.json', import.meta.url), 'utf8'),
)

/** Files that wait most of their time, for timeouts and retries. */
const WAITING =
  /\/(node\/recovery|workflow\/races|steps\/transaction|status\/status|engine\/worker|changing-code|dead-connections|p7-clocks-and-leases|apply-stage|migration-lease|blocked-waits|faults\/locks|p5-under-a-lock|faults\/chaos)\./

/**
 * Starts with the files that take long, so that none of them runs alone in the end, and spreads those that mostly
 * wait among them, so that the machine has something to do meanwhile. Vitest itself knows how long each took from
 * an earlier run only, and a fresh clone has none. A file that is not in the list runs first.
 */
export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const duration = ({ moduleId, project }: TestSpecification) =>
      DURATIONS[relative(project.config.root, moduleId)] ?? Number.POSITIVE_INFINITY
    const sorted = files.toSorted((a, b) => Math.sign(duration(b) - duration(a)) || 0)
    const ordered = sorted.filter(({ moduleId }) => !WAITING.test(moduleId))
    const waiting = sorted.filter(({ moduleId }) => WAITING.test(moduleId))
    for (const [n, file] of waiting.entries()) ordered.splice(2 + n * 6, 0, file)
    return ordered
  }
}
