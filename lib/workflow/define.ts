import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import type { QueueStore } from '../store/queue-store.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import { type Definition, handlerOf, type WorkflowOptions } from './definition.ts'
import { name as nameSchema, queueOptions, workflowOptions } from './option-schemas.ts'
import { Queue, type QueueOptions } from './queue/queue.ts'

/** @throws PawlError `invalid-option` */
export function define(
  kind: ExecutionKind,
  name: string,
  options: WorkflowOptions<never, never> | WorkflowOptions<unknown, unknown> | undefined | object,
  code: Definition['code'],
  object: Definition['object'] = null,
): Definition {
  checkName(name, kind)
  if (typeof code !== 'function') {
    throw new PawlError(
      'invalid-option',
      `The ${kind} "${name}" was given no function.`,
      `Call pawl.${kind}(name, options, fn).`,
    )
  }
  const parsed = parseOptions(workflowOptions, options, `${kind} "${name}"`)
  const version = parsed.version ?? null
  return {
    kind,
    name,
    version,
    handler: handlerOf(kind, name, version),
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

/** With what the names of objects' own queues begin. */
export const OBJECT_QUEUE = 'object '

/** @throws PawlError `invalid-option` */
export function defineQueue(
  name: string,
  options: QueueOptions | undefined,
  store: () => QueueStore,
): Queue {
  checkName(name, 'queue')
  if (name.startsWith(OBJECT_QUEUE)) {
    throw new PawlError(
      'invalid-option',
      `The name of the queue is "${name}"; names that begin with "${OBJECT_QUEUE}" are those of objects.`,
      'Give it another name.',
    )
  }
  return new Queue(name, parseOptions(queueOptions, options, `queue "${name}"`), store)
}

/** @throws PawlError `invalid-option` */
export function checkName(name: unknown, what: string): void {
  const result = nameSchema.safeParse(name)
  if (result.success) return
  throw new PawlError(
    'invalid-option',
    `The name of the ${what} is ${typeof name === 'string' ? `"${name}"` : String(name)}; allowed: ${result.error.issues[0]?.message}.`,
    `Give the ${what} a name; it is what people see, and it must stay the same.`,
  )
}
