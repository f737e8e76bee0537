import type { IdempotencyOptions } from '../../../lib/http/route-options.ts'
import type { Execution, Pawl } from '../../../lib/index.ts'

/** A request as the app's options see it, in any framework. */
export interface Asked {
  method: string
  header(name: string): string | undefined
}

/** A request as the handler sees it. */
export interface Call extends Asked {
  execution: Execution | undefined
  /** What the framework makes of the body: a value for JSON, text for text, else bytes. */
  body(): Promise<unknown>
}

/** What the handler answers, by the means that its framework has for it. */
export interface Reply {
  /** Default 200. */
  status?: number
  headers?: Record<string, string | string[]>
  /** By the framework's way to set a cookie, or a header. */
  cookies?: string[]
  json?: unknown
  text?: string
  bytes?: Uint8Array
  stream?: () => AsyncIterable<Uint8Array>
}

export type Options = IdempotencyOptions<Asked>

/** What a driver makes a server of: one handler for every method and path, behind the adapter. */
export interface Neutral {
  pawl: Pawl
  options: Options
  handle(call: Call): Reply | Promise<Reply>
}

export interface Server {
  url: string
  close(): Promise<void>
}

/** A framework under test. */
export interface Driver {
  name: string
  start(app: Neutral): Promise<Server>
  /** Cases that the framework makes impossible, by name, and why; the README says the same. */
  impossible?: Record<string, string>
}

/** The options for a framework whose requests look otherwise. */
export function translate<Request>(
  options: Options,
  ask: (request: Request) => Asked,
): IdempotencyOptions<Request> {
  const { scope, key, skip, fingerprint, statusUrl, ...rest } = options
  return {
    ...rest,
    ...(scope && { scope: (request) => scope(ask(request)) }),
    ...(key && { key: typeof key === 'function' ? (request) => key(ask(request)) : key }),
    ...(skip && { skip: (request) => skip(ask(request)) }),
    ...(statusUrl && {
      statusUrl:
        typeof statusUrl === 'function' ? (id, request) => statusUrl(id, ask(request)) : statusUrl,
    }),
    ...(fingerprint && { fingerprint: (request) => fingerprint(ask(request)) }),
  }
}
