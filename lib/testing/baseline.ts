/** Compares runs with crashes to what runs without crashes do. */

import { commonPattern, type Difference, findDifferences } from './compare-values.ts'
import { type CrashTestAnswer, problemCodeOf } from './crash-test-answer.ts'
import { CrashTestError, listDifferences } from './crash-test-error.ts'
import type { CrashTestRun } from './crash-test-run.ts'

/** How a run differs from the baseline. */
export interface Mismatch {
  /** What is wrong, and the likely reason. */
  reason: string
  differences: Difference[]
}

const NOT_REACHED =
  'This run did not reach that point: it recorded less than the run without crashes. The same request must run the same steps.'
const UNKNOWN =
  'The attempt crashed before it recorded anything, so its effects are unknown, and Pawl does not run it again. If everything that the handler does is in steps, or may be done twice, give the route resumable: true.'
const EFFECTS =
  'Something took effect twice, or not at all. Do it in execution.step, with the idempotencyKey that the step gets, or in execution.transaction.'
const ANSWER = 'The answer after the crash differs.'
const ATTEMPTS =
  'The expected value is what the process that died was about to answer. Take values that the handler creates between steps (times, random numbers, ids) from execution.now(), random() or uuid(), or from a step.'

/** What two runs without crashes have in common, which no crash may change. */
export class Baseline {
  readonly #outcome: (answer: CrashTestAnswer) => unknown
  readonly #first: unknown
  readonly #replay: unknown
  readonly #check: unknown

  /**
   * @param outcome returns the part of an answer that must be the same
   * @throws CrashTestError if `check` returned something else after each of the two runs
   */
  constructor(one: CrashTestRun, two: CrashTestRun, outcome: (answer: CrashTestAnswer) => unknown) {
    const inBoth = (answerOf: (run: CrashTestRun) => CrashTestAnswer | null) => {
      const [a, b] = [answerOf(one), answerOf(two)]
      return a && b && commonPattern(outcome(a), outcome(b))
    }
    this.#outcome = outcome
    this.#first = inBoth(({ answer }) => answer)
    this.#replay = inBoth(({ replay }) => replay)
    this.#check = one.check
    const differing = findDifferences(one.check, two.check, 'check')
    if (differing.length > 0) {
      throw new CrashTestError(
        `check() returns something else after each run, even without a crash:\n${listDifferences(differing)}\nCount only what belongs to its key, leave out values created for each request (ids, times), or give the reset option.`,
      )
    }
  }

  /**
   * Compares a run with the baseline; returns null if they match.
   * @param crashes how many processes were to die in the run
   */
  compare(run: CrashTestRun, crashes: number): Mismatch | null {
    const { answer, failure, intended, recorded } = run
    if (failure || !answer) return { reason: failure ?? 'There is no answer.', differences: [] }
    if (run.crashes.length < crashes) return { reason: NOT_REACHED, differences: [] }
    const expected = run.isReplay ? this.#replay : this.#first
    const ofAnswer = findDifferences(expected, this.#outcome(answer), 'answer')
    if (problemCodeOf(answer) === 'outcome-unknown')
      return { reason: UNKNOWN, differences: ofAnswer }
    const ofCheck = findDifferences(this.#check, run.check, 'check')
    if (ofCheck.length > 0) return { reason: EFFECTS, differences: [...ofAnswer, ...ofCheck] }
    if (ofAnswer.length > 0) return { reason: ANSWER, differences: ofAnswer }
    const differing = recorded ? this.#intendedDifferences(intended, recorded) : []
    return differing.length > 0 ? { reason: ATTEMPTS, differences: differing } : null
  }

  /** Compares the recorded answer with those that dead processes were about to record: all must be equal. */
  #intendedDifferences(
    intended: readonly CrashTestAnswer[],
    recorded: CrashTestAnswer,
  ): Difference[] {
    const actual = this.#outcome(recorded)
    return intended.flatMap((answer) => findDifferences(this.#outcome(answer), actual, 'answer'))
  }
}
