/** Validates the options of workflows and queues, and builds their definitions. */

import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import type { QueueStore } from '../store/queue-store.ts'
import { handlerName, type WorkflowDefinition, type WorkflowOptions } from './definition.ts'
import { nameSchema, queueOptions, workflowOptions } from './option-schemas.ts'
import { Queue, type QueueOptions } from './queue/queue.ts'

/** Builds the definition of a workflow, or of one handler of an object. @throws PawlError `invalid-option` */
export function createDefinition(
  kind: ExecutionKind,
  name: string,
  options: WorkflowOptions<never, never> | WorkflowOptions<unknown, unknown> | undefined | object,
  code: WorkflowDefinition['code'],
  object: WorkflowDefinition['object'] = null,
): WorkflowDefinition {
  checkName(name, kind)
  if (typeof code !== 'function') {
    throw new PawlError(
      'invalid-option',
      `The ${kind} "${name}" has no function.`,
      `Call pawl.${kind}(name, options, fn).`,
    )
  }
  const parsed = parseOptions(workflowOptions, options, `${kind} "${name}"`)
  const version = parsed.version ?? null
  return {
    kind,
    name,
    version,
    handler: handlerName(kind, name, version),
    input: parsed.input,
    output: parsed.output,
    retry: parsed.retry,
    timeoutMs: parsed.timeout ?? null,
    queue: (parsed.queue as Queue | undefined) ?? null,
    retentionMs: parsed.retention,
    code,
    object,
  }
}

/** The prefix of the names of the queues that objects use internally. */
export const OBJECT_QUEUE = 'object '

/** Creates a queue. @throws PawlError `invalid-option` */
export function defineQueue(
  name: string,
  options: QueueOptions | undefined,
  store: () => QueueStore,
): Queue {
  checkName(name, 'queue')
  if (name.startsWith(OBJECT_QUEUE)) {
    throw new PawlError(
      'invalid-option',
      `The name of the queue is "${name}"; names that begin with "${OBJECT_QUEUE}" are reserved for objects.`,
      'Give it another name.',
    )
  }
  return new Queue(name, parseOptions(queueOptions, options, `queue "${name}"`), store)
}

/**
 * Checks the name of a workflow, object, queue or schedule.
 * @param what the kind of thing that is named, for the message
 * @throws PawlError `invalid-option`
 */
export function checkName(name: unknown, what: string): void {
  const result = nameSchema.safeParse(name)
  if (result.success) return
  throw new PawlError(
    'invalid-option',
    `The name of the ${what} is ${typeof name === 'string' ? `"${name}"` : String(name)}; allowed: ${result.error.issues[0]?.message}.`,
    `Give the ${what} a valid name, and never change it: the database and the views refer to it.`,
  )
}
