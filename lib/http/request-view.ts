/** The interface through which http/ reads a request of any framework. */

import type { Attempt } from '../engine/attempt.ts'
import type { RequestBody } from './fingerprint.ts'
import type { RequestRuntime } from './runtime.ts'

/** Why a body could not be read: over the limit, already read by other code, or cut off by the client. */
export type BodyFailure = 'too-large' | 'consumed' | 'aborted'

/** A request as Pawl reads it; each framework's adapter implements this. */
export interface RequestView {
  readonly method: string
  /** Path and query as the client sent them. */
  readonly url: string
  /** The value of a header, by lower-case name; undefined if there is no such header. */
  header(name: string): string | undefined
  /** The values of a header as they arrived, one for each header line, by lower-case name. */
  headerLines(name: string): readonly string[]
  /** All headers as they arrived, one entry for each header line. */
  allHeaders(): readonly (readonly [name: string, value: string])[]
  /**
   * Reads the body; the handler can still read it afterwards.
   * @param maxBytes the largest body that is read; a larger one is `'too-large'`
   */
  readBody(maxBytes: number): Promise<RequestBody | BodyFailure>
  /** The attempt for which this Pawl delivers the request again after a crash; undefined for a client's request. */
  recoveredAttempt(runtime: RequestRuntime): Attempt | undefined
  /** A new signal that aborts when the client disconnects. */
  disconnectSignal(): AbortSignal
}
