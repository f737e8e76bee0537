import type { z } from 'zod'
import { PawlError } from '../errors/index.ts'
import type { Duration } from '../options/parse-options.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import type { Queue } from './queue/queue.ts'

/** Options of a workflow. */
export interface WorkflowOptions<Input, Output> {
  /** A zod schema of its input. Default: any value that can be kept. */
  input?: z.ZodType<Input>
  /** A zod schema of its result. Default: any value that can be kept. */
  output?: z.ZodType<Output>
  /**
   * How often it runs if it throws, each time later, before it is parked: shown by `pawl list`, and
   * resumed by `pawl release`. A number of attempts, or all of it. A TerminalError ends it at once.
   * Default `{ attempts: 10, backoff: '1s', maxBackoff: '5 minutes' }`.
   */
  retry?: number | { attempts?: number; backoff?: Duration; maxBackoff?: Duration }
  /** How long it may take in all, from its start; then it fails, and is undone. Default: for ever. */
  timeout?: Duration
  /** The queue under whose limits it runs. Default: none. */
  queue?: Queue
  /**
   * Names this version of the code. Executions run under the version they were started with, in
   * processes that have it; so an old one stays until its executions are done. Default: none.
   */
  version?: string
  /** How long its outcome is kept. Default `'7 days'`. */
  retention?: Duration
}

/** A workflow as this process knows it. */
export interface Definition {
  kind: ExecutionKind
  name: string
  version: string | null
  /** What names it in wakeups. */
  handler: string
  input: z.ZodType | undefined
  output: z.ZodType | undefined
  retry: { attempts: number; backoff: number; maxBackoff: number }
  timeoutMs: number | null
  queue: Queue | null
  retentionMs: number
  code: (execution: never, input: never) => unknown
  /** Of which object it is a handler; null: it is a workflow. */
  object: { name: string; readOnly: boolean } | null
}

export function handlerOf(kind: ExecutionKind, name: string, version: string | null): string {
  return `${kind} ${name}${version === null ? '' : `@${version}`}`
}

/**
 * What a schema makes of an input or a result.
 * @throws PawlError `input-invalid`, `value-invalid`
 */
export async function fits(
  code: 'input-invalid' | 'value-invalid',
  what: string,
  schema: z.ZodType | undefined,
  value: unknown,
): Promise<unknown> {
  if (!schema) return value
  const result = await schema.safeParseAsync(value)
  if (result.success) return result.data
  const { prettifyError } = await import('zod')
  throw new PawlError(
    code,
    `${what} does not fit its schema: ${prettifyError(result.error)}.`,
    code === 'input-invalid'
      ? 'Nothing was started; correct the input.'
      : 'Correct it, or its schema.',
    result.error,
  )
}
