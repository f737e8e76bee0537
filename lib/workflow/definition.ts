/** The options of a workflow, and the record that this process keeps of a defined workflow: code and options. */

import type { z } from 'zod'
import { PawlError } from '../errors/index.ts'
import type { Duration } from '../options/parse-options.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import type { Queue } from './queue/queue.ts'

/** Options of `pawl.workflow()`. */
export interface WorkflowOptions<Input, Output> {
  /** A zod schema that validates the input. Default: any serializable value is accepted. */
  input?: z.ZodType<Input>
  /** A zod schema that validates the result. Default: any serializable value is accepted. */
  output?: z.ZodType<Output>
  /**
   * How often the workflow is attempted if it throws, with a growing pause between attempts. After the last
   * attempt it is parked: `pawl list` shows it, and `pawl release` resumes it. A TerminalError ends it at
   * once. A number sets only the attempts.
   * Default `{ attempts: 10, backoff: '1s', maxBackoff: '5 minutes' }`.
   */
  retry?: number | { attempts?: number; backoff?: Duration; maxBackoff?: Duration }
  /**
   * The time limit for all attempts together, from the start of the workflow. When it is exceeded, the
   * workflow fails and its compensations run. Default: no limit.
   */
  timeout?: Duration
  /** The queue whose limits apply to the workflow. Default: none. */
  queue?: Queue
  /**
   * Names this version of the code. An execution runs only in processes that define the version it was
   * started with, so keep an old version defined until its executions have ended. Default: none.
   */
  version?: string
  /**
   * How long the outcome is kept after the workflow has ended. For an unfinished execution that has started it, or that
   * waits for it, the outcome is kept for longer: see `ignoreResult` of `start()`. Default `'7 days'`.
   */
  retention?: Duration
}

/** A workflow, or a handler of an object, with its options resolved. */
export interface WorkflowDefinition {
  kind: ExecutionKind
  name: string
  version: string | null
  /** Identifies kind, name and version in wakeups; see {@link handlerName}. */
  handler: string
  input: z.ZodType | undefined
  output: z.ZodType | undefined
  retry: { attempts: number; backoff: number; maxBackoff: number }
  timeoutMs: number | null
  queue: Queue | null
  retentionMs: number
  code: (execution: never, input: never) => unknown
  /** The object that this is a handler of; null: this is a workflow. */
  object: { name: string; readOnly: boolean } | null
}

/** The name under which workers find the wakeups of a definition. */
export function handlerName(kind: ExecutionKind, name: string, version: string | null): string {
  return `${kind} ${name}${version === null ? '' : `@${version}`}`
}

/**
 * Validates an input or a result, and returns the value that its schema produces.
 * @param what the value's description, for the message
 * @throws PawlError `input-invalid`, `value-invalid`
 */
export async function parseWithSchema(
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
    `${what} does not match its schema: ${prettifyError(result.error)}.`,
    code === 'input-invalid'
      ? 'Nothing was started; correct the input.'
      : 'Correct the value, or its schema.',
    result.error,
  )
}
