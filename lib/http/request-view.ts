import type { Attempt } from '../engine/attempt.ts'
import type { Body } from './fingerprint.ts'
import type { RequestRuntime } from './runtime.ts'

/** Why a body could not be read. */
export type BodyFailure = 'too-large' | 'consumed' | 'aborted'

/** What Pawl must see of a request, whatever framework it came through. */
export interface RequestView {
  readonly method: string
  /** Path and query as the client sent them. */
  readonly url: string
  /** A header's value, by lower-case name; undefined if there is none. */
  header(name: string): string | undefined
  /** A header's values as they arrived, one for each line, by lower-case name. */
  headerLines(name: string): readonly string[]
  /** All headers as they arrived, one for each line. */
  allHeaders(): readonly (readonly [name: string, value: string])[]
  /**
   * The body, which the handler can still read afterwards.
   * @param maxBytes more than this is refused
   */
  body(maxBytes: number): Promise<Body | BodyFailure>
  /** The attempt as which this Pawl hands it to the app again; undefined for a client's request. */
  recovered(runtime: RequestRuntime): Attempt | undefined
  /** Gives a signal that fires when the client is gone; asked for before waiting. */
  gone(): AbortSignal
}
