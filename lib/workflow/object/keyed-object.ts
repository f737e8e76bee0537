import { currentExecution } from '../../engine/current-execution.ts'
import { after } from '../../engine/retry/retry-while-unavailable.ts'
import { decodeValue } from '../../engine/values/value-codec.ts'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import type { StateKey } from '../../store/state-store.ts'
import { checkName, define, OBJECT_QUEUE } from '../define.ts'
import type { Definition, WorkflowOptions } from '../definition.ts'
import { WorkflowHandle } from '../workflow-handle.ts'
import { objectKey, objectOptions } from '../option-schemas.ts'
import type { WorkflowParts } from '../dependencies.ts'
import { Queue } from '../queue/queue.ts'
import { RunningWorkflow } from '../running-workflow.ts'
import type { StartOptions } from '../start-options.ts'
import { idOf } from '../workflow-starter.ts'
import type { WorkflowRuntime } from '../workflow.ts'
import type { ObjectExecution, ReaderExecution } from './object-execution.ts'
import { readState } from './object-state.ts'

/** What an object needs of the Pawl that defined it. */
interface ObjectRuntime extends WorkflowRuntime {
  /** @throws PawlError `not-started` */
  readonly parts: Pick<WorkflowParts, 'queues' | 'state' | 'sealer' | 'storeTimeoutMs'>
  /** @throws PawlError `invalid-option` if the name is taken */
  define(definition: Definition): void
}

/** Handlers of an object, by name. */
export type Handlers = Record<string, (execution: ObjectExecution, input: never) => unknown>

/** Handlers that only read, by name. */
export type Readers = Record<string, (execution: ReaderExecution, input: never) => unknown>

/** Options of an object. */
export interface ObjectOptions<H extends Handlers>
  extends Pick<WorkflowOptions<never, never>, 'retry' | 'timeout' | 'version' | 'retention'> {
  /**
   * What can be called, by name. Those of one key run one at a time, in the order of the calls: one that
   * sleeps, waits or is tried again keeps the others waiting; one that is parked does not.
   */
  handlers: H
}

/** Options of an object. */
export interface ReadableObjectOptions<H extends Handlers, R extends Readers>
  extends ObjectOptions<H> {
  /** The same for what only reads: these run at once, beside the others. */
  readers: R
}

/** Options of a call. */
export type CallOptions = Omit<StartOptions, 'queueKey'>

type Code = (execution: never, input: never) => unknown
type InputOf<F extends Code> = Parameters<F>[1]
type OutputOf<F extends Code> = Awaited<ReturnType<F>>

/** Calls a handler, and resolves to its result. */
export type Call<F extends Code> =
  undefined extends InputOf<F>
    ? (input?: InputOf<F>, options?: CallOptions) => Promise<OutputOf<F>>
    : (input: InputOf<F>, options?: CallOptions) => Promise<OutputOf<F>>

/** An object under one of its keys: its handlers, as functions that call them. */
export type ObjectOf<All extends Record<string, Code>> = {
  readonly [Name in keyof All]: Call<All[Name]>
} & {
  readonly key: string
  /**
   * Calls a handler and does not wait for it.
   * @throws PawlError as `workflow.start`
   */
  start<Name extends keyof All & string>(
    name: Name,
    ...rest: Parameters<Call<All[Name]>>
  ): Promise<WorkflowHandle<OutputOf<All[Name]>>>
  /** The handle of a call that was started under this `key`. */
  handle<Name extends keyof All & string>(
    name: Name,
    key: string,
  ): WorkflowHandle<OutputOf<All[Name]>>
  /**
   * All that is kept under this key now, by name.
   * @throws PawlError `store-unavailable`, `decryption-failed`
   */
  state(): Promise<Record<string, unknown>>
}

/** What every object has, under each key. */
const OWN = ['key', 'start', 'handle', 'state', 'then']

/** An object, from `pawl.object(name, options)`: handlers and what they keep, for each of its keys. */
export class KeyedObject<All extends Record<string, Code>> {
  readonly name: string
  readonly #runtime: ObjectRuntime
  readonly #definitions: ReadonlyMap<string, Definition>

  /** @internal */
  constructor(runtime: ObjectRuntime, name: string, definitions: ReadonlyMap<string, Definition>) {
    this.#runtime = runtime
    this.name = name
    this.#definitions = definitions
  }

  /** @throws PawlError `invalid-option` if the key is not a string of 1 to 1024 characters */
  of(key: string): ObjectOf<All> {
    const at = {
      object: this.name,
      key: parseOptions(objectKey, { key }, `object "${this.name}"`).key,
    }
    const begin = (name: string, input: unknown, options: CallOptions | undefined) =>
      this.#start(at, this.#definition(name), input, options)
    const calls = [...this.#definitions].map(([name, definition]) => [
      name,
      async (input?: unknown, options?: CallOptions) => {
        if (definition.queue) refuseDeadlock(at)
        return (await begin(name, input, options)).result()
      },
    ])
    return Object.assign(Object.fromEntries(calls), {
      key,
      start: begin,
      handle: (name: string, callKey: string) => this.#handle(at, this.#definition(name), callKey),
      state: () => this.#state(at),
    })
  }

  #definition(name: string): Definition {
    const definition = this.#definitions.get(name)
    if (definition) return definition
    throw new PawlError(
      'invalid-option',
      `Object "${this.name}" has no handler "${name}"; there are: ${[...this.#definitions.keys()].join(', ')}.`,
      'Call one of those.',
    )
  }

  async #start(
    at: StateKey,
    definition: Definition,
    input: unknown,
    options: CallOptions | undefined,
  ): Promise<WorkflowHandle> {
    const lane = definition.queue ? { queueKey: at.key } : {}
    const start = { ...options, ...lane }
    const key = await this.#runtime.starter.start(definition, input, start, at.key)
    return this.#handle(at, definition, key)
  }

  #handle(at: StateKey, { kind, name, queue }: Definition, key: string): WorkflowHandle {
    const id = idOf(kind, name, key, at.key)
    const beforeWaiting = queue ? () => refuseDeadlock(at) : undefined
    return new WorkflowHandle(this.#runtime.control, id, key, name, beforeWaiting)
  }

  async #state(at: StateKey): Promise<Record<string, unknown>> {
    const { state, sealer, storeTimeoutMs } = this.#runtime.parts
    const kept = await readState(state, sealer, at, after(storeTimeoutMs))
    return Object.fromEntries([...kept].map(([name, bytes]) => [name, decodeValue(bytes)]))
  }
}

/** @throws PawlError `object-deadlock` if the running code holds what it is about to wait for */
function refuseDeadlock(at: StateKey): void {
  const current = currentExecution()
  if (!(current instanceof RunningWorkflow) || !current.holds(at)) return
  throw new PawlError(
    'object-deadlock',
    `A handler of object "${at.object}" waits for a call of the same key, "${at.key}", which waits for this handler to end.`,
    'Call the function itself, start() it and do not wait, or make it a reader.',
  )
}

/** @throws PawlError `invalid-option` */
export function defineObject(
  runtime: ObjectRuntime,
  name: string,
  options: object,
): KeyedObject<Record<string, Code>> {
  checkName(name, 'object')
  const what = `object "${name}"`
  const { handlers, readers, ...rest } = parseOptions(objectOptions, options, what)
  const store = () => runtime.parts.queues
  const queue = new Queue(`${OBJECT_QUEUE}${name}`, { concurrencyPerKey: 1 }, store)
  const definitions = new Map<string, Definition>()
  for (const [readOnly, group] of [
    [false, handlers],
    [true, readers],
  ] as const) {
    for (const [handler, code] of Object.entries(group)) {
      if (OWN.includes(handler) || definitions.has(handler)) {
        throw new PawlError(
          'invalid-option',
          `${what} has a handler "${handler}", which is ${OWN.includes(handler) ? "a name of Pawl's own" : 'a reader too'}.`,
          `Give it another name; not one of ${OWN.join(', ')}.`,
        )
      }
      const own = readOnly ? rest : { ...rest, queue }
      const about = { name, readOnly }
      const definition = define('object', `${name}.${handler}`, own, code as never, about)
      definitions.set(handler, definition)
    }
  }
  for (const definition of definitions.values()) runtime.define(definition)
  return new KeyedObject(runtime, name, definitions)
}
