/** Objects with keyed state: defines their handlers, and calls them for a key. */

import { currentExecution } from '../../engine/current-execution.ts'
import { deadlineAfter } from '../../engine/retry/retry-while-unavailable.ts'
import { decodeValue } from '../../engine/values/value-codec.ts'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import type { StateKey } from '../../store/state-store.ts'
import { checkName, createDefinition, OBJECT_QUEUE } from '../define.ts'
import type { WorkflowDefinition, WorkflowOptions } from '../definition.ts'
import type { WorkflowDependencies } from '../dependencies.ts'
import { objectKey, objectOptions } from '../option-schemas.ts'
import { Queue } from '../queue/queue.ts'
import { RunningWorkflow } from '../running-workflow.ts'
import type { StartOptions } from '../start-options.ts'
import type { WorkflowRuntime } from '../workflow.ts'
import { WorkflowHandle } from '../workflow-handle.ts'
import { workflowExecutionId } from '../workflow-starter.ts'
import type { ObjectExecution, ReaderExecution } from './object-execution.ts'
import { readState } from './object-state.ts'

/** What an object uses of the Pawl instance that defined it. */
interface ObjectRuntime extends WorkflowRuntime {
  /** @throws PawlError `not-started` */
  readonly dependencies: Pick<
    WorkflowDependencies,
    'queues' | 'state' | 'encryptor' | 'storeTimeoutMs'
  >
  /** @throws PawlError `invalid-option` if the name is already defined */
  register(definition: WorkflowDefinition): void
}

/** The handlers of an object, by name. */
export type Handlers = Record<string, (execution: ObjectExecution, input: never) => unknown>

/** The handlers of an object that only read its state, by name. */
export type Readers = Record<string, (execution: ReaderExecution, input: never) => unknown>

/** Options of `pawl.object()`. */
export interface ObjectOptions<H extends Handlers>
  extends Pick<WorkflowOptions<never, never>, 'retry' | 'timeout' | 'version' | 'retention'> {
  /**
   * The functions that can be called, by name. For each key one runs at a time, in the order of the calls: a
   * call that sleeps, waits or is retried keeps later calls waiting; a parked call does not.
   */
  handlers: H
}

/** Options of `pawl.object()` for an object that also has readers. */
export interface ReadableObjectOptions<H extends Handlers, R extends Readers>
  extends ObjectOptions<H> {
  /** Functions that only read the state. They run at once, concurrently with the handlers. */
  readers: R
}

/** Options of a call of a handler. */
export type CallOptions = Omit<StartOptions, 'queueKey'>

type Code = (execution: never, input: never) => unknown
type InputOf<F extends Code> = Parameters<F>[1]
type OutputOf<F extends Code> = Awaited<ReturnType<F>>

/** A function that calls a handler and resolves to its result. */
export type Call<F extends Code> =
  undefined extends InputOf<F>
    ? (input?: InputOf<F>, options?: CallOptions) => Promise<OutputOf<F>>
    : (input: InputOf<F>, options?: CallOptions) => Promise<OutputOf<F>>

/** An object under one key: for each handler a function that calls it. */
export type ObjectOf<All extends Record<string, Code>> = {
  readonly [Name in keyof All]: Call<All[Name]>
} & {
  readonly key: string
  /**
   * Calls a handler without waiting for its result.
   * @throws PawlError as `workflow.start`
   */
  start<Name extends keyof All & string>(
    name: Name,
    ...rest: Parameters<Call<All[Name]>>
  ): Promise<WorkflowHandle<OutputOf<All[Name]>>>
  /** Returns the handle of a call that was started with this `key` option. */
  handle<Name extends keyof All & string>(
    name: Name,
    key: string,
  ): WorkflowHandle<OutputOf<All[Name]>>
  /**
   * Reads the current state under this key: all values, by name.
   * @throws PawlError `store-unavailable`, `decryption-failed`
   */
  state(): Promise<Record<string, unknown>>
}

/** Names that a handler may not have, since every object has members of these names (or must not, as `then`). */
const RESERVED_NAMES = ['key', 'start', 'handle', 'state', 'then']

/** An object, as `pawl.object(name, options)` returns it: handlers with state for each key. */
export class KeyedObject<All extends Record<string, Code>> {
  readonly name: string
  readonly #runtime: ObjectRuntime
  readonly #definitions: ReadonlyMap<string, WorkflowDefinition>

  /** @internal */
  constructor(
    runtime: ObjectRuntime,
    name: string,
    definitions: ReadonlyMap<string, WorkflowDefinition>,
  ) {
    this.#runtime = runtime
    this.name = name
    this.#definitions = definitions
  }

  /**
   * Selects a key of the object, whose handlers can then be called.
   * @throws PawlError `invalid-option` if the key is not a string of 1 to 1024 characters
   */
  of(key: string): ObjectOf<All> {
    const stateKey = {
      object: this.name,
      key: parseOptions(objectKey, { key }, `object "${this.name}"`).key,
    }
    const start = (name: string, input: unknown, options: CallOptions | undefined) =>
      this.#start(stateKey, this.#definition(name), input, options)
    const calls = [...this.#definitions].map(([name, definition]) => [
      name,
      async (input?: unknown, options?: CallOptions) => {
        if (definition.queue) assertNoDeadlock(stateKey)
        return (await start(name, input, options)).result()
      },
    ])
    return Object.assign(Object.fromEntries(calls), {
      key,
      start,
      handle: (name: string, callKey: string) =>
        this.#handle(stateKey, this.#definition(name), callKey),
      state: () => this.#state(stateKey),
    })
  }

  #definition(name: string): WorkflowDefinition {
    const definition = this.#definitions.get(name)
    if (definition) return definition
    throw new PawlError(
      'invalid-option',
      `Object "${this.name}" has no handler "${name}"; it has: ${[...this.#definitions.keys()].join(', ')}.`,
      'Call one of these.',
    )
  }

  async #start(
    stateKey: StateKey,
    definition: WorkflowDefinition,
    input: unknown,
    options: CallOptions | undefined,
  ): Promise<WorkflowHandle> {
    const queueOptions = definition.queue ? { queueKey: stateKey.key } : {}
    const start = { ...options, ...queueOptions }
    const key = await this.#runtime.starter.start(definition, input, start, stateKey.key)
    return this.#handle(stateKey, definition, key)
  }

  #handle(
    stateKey: StateKey,
    { kind, name, queue }: WorkflowDefinition,
    key: string,
  ): WorkflowHandle {
    const id = workflowExecutionId(kind, name, key, stateKey.key)
    const beforeWaiting = queue ? () => assertNoDeadlock(stateKey) : undefined
    return new WorkflowHandle(this.#runtime.control, id, key, name, beforeWaiting)
  }

  async #state(stateKey: StateKey): Promise<Record<string, unknown>> {
    const { state, encryptor, storeTimeoutMs } = this.#runtime.dependencies
    const values = await readState(state, encryptor, stateKey, deadlineAfter(storeTimeoutMs))
    return Object.fromEntries([...values].map(([name, bytes]) => [name, decodeValue(bytes)]))
  }
}

/**
 * Checks that the current code does not wait for a call that can only start after the current handler has ended.
 * @throws PawlError `object-deadlock`
 */
function assertNoDeadlock(stateKey: StateKey): void {
  const current = currentExecution()
  if (!(current instanceof RunningWorkflow) || !current.blocksCallsOf(stateKey)) return
  throw new PawlError(
    'object-deadlock',
    `A handler of object "${stateKey.object}" waits for a call of the same key, "${stateKey.key}", which waits for this handler to end.`,
    'Call the plain function instead, use start() without waiting for the result, or make it a reader.',
  )
}

/** Defines an object, with one workflow definition for each handler. @throws PawlError `invalid-option` */
export function defineObject(
  runtime: ObjectRuntime,
  name: string,
  options: object,
): KeyedObject<Record<string, Code>> {
  checkName(name, 'object')
  const what = `object "${name}"`
  const { handlers, readers, ...rest } = parseOptions(objectOptions, options, what)
  const store = () => runtime.dependencies.queues
  const queue = new Queue(`${OBJECT_QUEUE}${name}`, { concurrencyPerKey: 1 }, store)
  const definitions = new Map<string, WorkflowDefinition>()
  for (const [readOnly, group] of [
    [false, handlers],
    [true, readers],
  ] as const) {
    for (const [handler, code] of Object.entries(group)) {
      if (RESERVED_NAMES.includes(handler) || definitions.has(handler)) {
        throw new PawlError(
          'invalid-option',
          `${what} has a handler "${handler}", which is ${RESERVED_NAMES.includes(handler) ? 'a reserved name' : 'also the name of a reader'}.`,
          `Give it another name; reserved are ${RESERVED_NAMES.join(', ')}.`,
        )
      }
      const workflowOptions = readOnly ? rest : { ...rest, queue }
      const object = { name, readOnly }
      const definition = createDefinition(
        'object',
        `${name}.${handler}`,
        workflowOptions,
        code as never,
        object,
      )
      definitions.set(handler, definition)
    }
  }
  for (const definition of definitions.values()) runtime.register(definition)
  return new KeyedObject(runtime, name, definitions)
}
