import type { Attempt } from '../engine/attempt.ts'
import { within } from '../engine/within.ts'
import type { Pawl } from '../pawl.ts'
import { type Answer, inProgress, notRecorded, replayAnswer, timedOut } from './answers.ts'
import { encodeHeaders, type Header } from './headers.ts'
import { fate, isFailure, isResumable } from './policy.ts'
import type { RouteOptions } from './route-options.ts'

/** A response that is complete, or about to flow. */
export interface Captured {
  status: number
  /** What the handler set or changed; what was there before it belongs to this one message. */
  headers: Header[]
  /** Null if the body flows: it is larger than `maxBody`, or an event stream. */
  body: Buffer | null
}

/** Let the response go as the handler made it, or answer otherwise. */
export type Verdict = 'send' | Answer

/** What an adapter tells of the response to the attempt's request. */
export interface Responding {
  /** Whether the handler has answered, or its answer already flows. */
  readonly answered: boolean
  /** Answers in the handler's place; what it answers later is still concluded. */
  answer(answer: Answer): void
}

type Concluding = Pick<RouteOptions<never>, 'resumable' | 'storedHeaders' | 'timeout'>

/** Ends one attempt: decides what becomes of its response, and for how long one is waited for. */
export class Conclusion {
  readonly #pawl: Pawl
  readonly #options: Concluding
  readonly #attempt: Attempt
  readonly #instance: string
  #timer: NodeJS.Timeout | undefined

  constructor(pawl: Pawl, options: Concluding, attempt: Attempt) {
    this.#pawl = pawl
    this.#options = options
    this.#attempt = attempt
    this.#instance = `urn:uuid:${attempt.execution.id}`
  }

  /** From now on the handler has the time that the `timeout` option gives it. */
  begin(response: Responding): void {
    this.#timer = setTimeout(() => this.#timeUp(response), this.#options.timeout)
    this.#timer.unref()
  }

  /** Records or releases; resolves when the response, or what takes its place, may be seen. */
  async conclude({ status, headers, body }: Captured): Promise<Verdict> {
    clearTimeout(this.#timer)
    const { storeTimeoutMs, logger } = this.#pawl
    const attempt = this.#attempt
    const execution = attempt.execution.id
    try {
      if (fate(status, isResumable(this.#options.resumable)) === 'released') {
        await within(storeTimeoutMs, attempt.release('released'))
        return 'send'
      }
      const kept = headers.filter((header) => this.#keeps(header))
      const outcome = { status, headers: encodeHeaders(kept), body }
      const settled = await within(storeTimeoutMs, attempt.complete(outcome, isFailure(status)))
      if (settled?.kind === 'done') {
        return settled.own ? 'send' : replayAnswer(settled.outcome, this.#instance)
      }
      if (settled) return inProgress(this.#instance)
      logger.warn('the store is away; an outcome is held until it is back', { execution })
    } catch (error) {
      logger.warn('an outcome could not be recorded', { error, execution })
    }
    return notRecorded(this.#instance)
  }

  async #timeUp(response: Responding): Promise<void> {
    if (response.answered) return
    await within(this.#pawl.storeTimeoutMs, this.#attempt.interrupt()).catch(() => null)
    if (response.answered) return
    response.answer(timedOut(this.#instance, isResumable(this.#options.resumable)))
  }

  /** What the app's function says; an outcome is worth more than a header on which it throws. */
  #keeps([name]: Header): boolean {
    try {
      return this.#options.storedHeaders(name.toLowerCase())
    } catch (error) {
      const message = 'the storedHeaders option threw; the header is not stored'
      this.#pawl.logger.warn(message, { error, name })
      return false
    }
  }
}
