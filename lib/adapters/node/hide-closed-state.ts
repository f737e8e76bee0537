import type { ServerResponse } from 'node:http'

/** What tells that Node is done with a response. */
const TRACES = ['finished', 'destroyed', 'closed', 'writableFinished'] as const

/**
 * Lets a response that is sent and closed look to its handler as one that is not: the handler goes on
 * without its client, and what pipes into it (`pipeline`, `send`) would stop at the first of these signs.
 * @param ended whether the handler has ended it
 */
export function seemOpen(response: ServerResponse, ended: () => boolean): void {
  for (const trace of TRACES) {
    Object.defineProperty(response, trace, { configurable: true, get: ended, set() {} })
  }
}
