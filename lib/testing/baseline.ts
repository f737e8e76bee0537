import { type CrashTestAnswer, problemOf } from './crash-test-answer.ts'
import { type Difference, differences, inCommon } from './compare-values.ts'
import { CrashTestError, listDifferences } from './crash-test-error.ts'
import type { Run } from './crash-test-run.ts'

/** What is wrong with a run. */
export interface Verdict {
  /** What is wrong, and what may be the reason. */
  reason: string
  differences: Difference[]
}

const NOT_REACHED =
  'This run did not come there: it recorded less than the undisturbed one. The same request must ask for the same steps.'
const UNKNOWN =
  'The attempt had recorded nothing, so nobody can know what it did, and Pawl does not run it again. If all that the handler does is in steps, or may be done twice, give the route resumable: true.'
const EFFECTS =
  'Something took effect twice, or not at all. Do it in execution.step, with the idempotencyKey that the step gets, or in execution.transaction.'
const ANSWER = 'The answer after the crash is another one.'
const ATTEMPTS =
  'What was expected is what the process that died was about to answer. Take what the handler makes up between steps (times, random numbers, ids) from execution.now(), random() or uuid(), or from a step.'

/** What two undisturbed runs have in common: no crash may change it. */
export class Expectation {
  readonly #outcome: (answer: CrashTestAnswer) => unknown
  readonly #first: unknown
  readonly #replay: unknown
  readonly #check: unknown

  /**
   * @param outcome what of an answer must be the same
   * @throws CrashTestError if the two did not do the same
   */
  constructor(one: Run, two: Run, outcome: (answer: CrashTestAnswer) => unknown) {
    const inBoth = (answerOf: (run: Run) => CrashTestAnswer | null) => {
      const [a, b] = [answerOf(one), answerOf(two)]
      return a && b && inCommon(outcome(a), outcome(b))
    }
    this.#outcome = outcome
    this.#first = inBoth(({ answer }) => answer)
    this.#replay = inBoth(({ again }) => again)
    this.#check = one.check
    const unlike = differences(one.check, two.check, 'check')
    if (unlike.length > 0) {
      throw new CrashTestError(
        `check() says something else after each run, also without a crash:\n${listDifferences(unlike)}\nLet it count only what belongs to its key, leave out what is made anew for each request (ids, times), or give the reset option.`,
      )
    }
  }

  /** @param crashes how many processes were to die */
  judge(run: Run, crashes: number): Verdict | null {
    const { answer, complaint, intended, recorded } = run
    if (complaint || !answer) return { reason: complaint ?? 'There is no answer.', differences: [] }
    if (run.crashes.length < crashes) return { reason: NOT_REACHED, differences: [] }
    const expected = run.isReplay ? this.#replay : this.#first
    const ofAnswer = differences(expected, this.#outcome(answer), 'answer')
    if (problemOf(answer) === 'outcome-unknown') return { reason: UNKNOWN, differences: ofAnswer }
    const ofCheck = differences(this.#check, run.check, 'check')
    if (ofCheck.length > 0) return { reason: EFFECTS, differences: [...ofAnswer, ...ofCheck] }
    if (ofAnswer.length > 0) return { reason: ANSWER, differences: ofAnswer }
    const unlike = recorded ? this.#unlike(intended, recorded) : []
    return unlike.length > 0 ? { reason: ATTEMPTS, differences: unlike } : null
  }

  /** All that is recorded of a request leads to one answer, whichever attempt gives it. */
  #unlike(intended: readonly CrashTestAnswer[], recorded: CrashTestAnswer): Difference[] {
    const actual = this.#outcome(recorded)
    return intended.flatMap((answer) => differences(this.#outcome(answer), actual, 'answer'))
  }
}
