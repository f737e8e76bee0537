/** The execution object of an object's handlers: that of a workflow, with access to the object's state. */

import type { ExecutionDependencies } from '../../engine/running-execution.ts'
import type { Encryptor } from '../../engine/values/encryptor.ts'
import { decodeValue, encodeValue } from '../../engine/values/value-codec.ts'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import type { StateKey, StateStore } from '../../store/state-store.ts'
import { stateNameSchema } from '../option-schemas.ts'
import { RunningWorkflow, type RunningWorkflowDependencies } from '../running-workflow.ts'
import type { WorkflowExecution } from '../workflow-execution.ts'
import { checkSize } from '../workflow-outcome.ts'
import { encryptState, type ObjectState, type ReadonlyState, readState } from './object-state.ts'

/** The execution object that a handler of an object receives as its first argument. */
export interface ObjectExecution extends WorkflowExecution {
  /** The key of the object that was called: `cart.of(key)`. */
  readonly objectKey: string
  /** The object's state under this key. No other handler changes it while this one runs. */
  readonly state: ObjectState
}

/** The execution object that a reader of an object receives as its first argument. */
export interface ReaderExecution extends WorkflowExecution {
  readonly objectKey: string
  /** The object's state under this key, as it was at the first read in this attempt. */
  readonly state: ReadonlyState
}

/** What the execution of an object's handler needs in addition to that of a workflow. */
export interface ObjectDependencies {
  stateKey: StateKey
  readOnly: boolean
  store: StateStore
  encryptor: Encryptor
  /** The size limit of one value, in bytes. */
  maxBytes: number
  isStopped: () => boolean
}

/** The execution object of a handler while an attempt runs in this process. */
export class RunningObjectHandler extends RunningWorkflow implements ObjectExecution {
  readonly #object: ObjectDependencies
  /** The encoded state as of the first read, with the changes that this attempt has made since. */
  #values: Map<string, Buffer> | undefined
  /** The last state operation; the next one runs after it. */
  #lastTurn: Promise<unknown> = Promise.resolve()

  constructor(
    dependencies: ExecutionDependencies,
    workflow: RunningWorkflowDependencies,
    object: ObjectDependencies,
  ) {
    super(dependencies, workflow)
    this.#object = object
  }

  get objectKey(): string {
    return this.#object.stateKey.key
  }

  override blocksCallsOf({ object, key }: StateKey): boolean {
    const { stateKey, readOnly } = this.#object
    return !readOnly && stateKey.object === object && stateKey.key === key
  }

  override get state(): ObjectState {
    return this.#state
  }

  readonly #state: ObjectState = {
    get: async <T>(name: string) => {
      const stateName = parseStateName('get', name)
      return (await this.#read(`state.get ${stateName}`, (values) =>
        decodeValue(values.get(stateName) ?? null),
      )) as T | undefined
    },
    keys: async () =>
      (await this.#read('state.keys', (values) => [...values.keys()].sort())) as string[],
    set: (name, value) => this.#change('set', name, value),
    delete: (name) => this.#change('delete', name, undefined),
  }

  async #read(entry: string, select: (values: Map<string, Buffer>) => unknown): Promise<unknown> {
    const { journal, steps } = this.dependencies
    this.validateCall(entry, noop, 'state')
    const call = journal.call(entry, 'state')
    if (call.entry?.completed) return this.trackActive(journal.replay(call, call.entry))
    return this.#serialize(async () => {
      const started = performance.now()
      this.#values ??= await this.#load()
      const output = select(this.#values)
      // Only the current attempt may record what it read: the next call for the key may be running already.
      const existing = await journal.recordWith(call, output, (record) =>
        steps.record({
          ...record,
          kind: 'state',
          error: null,
          tookMs: Math.round(performance.now() - started),
          completed: true,
          onlyIfCurrent: true,
        }),
      )
      return existing ? journal.adopt(existing) : output
    })
  }

  async #change(what: 'set' | 'delete', name: string, value: unknown): Promise<void> {
    const { stateKey, readOnly, store, encryptor, maxBytes } = this.#object
    parseStateName(what, name)
    if (readOnly) {
      throw new PawlError(
        'read-only',
        `state.${what}("${name}") was called by a reader of object "${stateKey.object}".`,
        'Move the function to the handlers, which run one at a time for each key and may change state.',
      )
    }
    const { journal } = this.dependencies
    const entry = `state.${what} ${name}`
    this.validateCall(entry, noop, 'state')
    const bytes = encodeValue(value)
    checkSize(bytes, maxBytes, `The state "${name}" of object "${stateKey.object}"`)
    const call = journal.call(entry, 'state')
    if (call.entry?.completed)
      return void (await this.trackActive(journal.replay(call, call.entry)))
    await this.#serialize(async () => {
      const started = performance.now()
      const existing = await journal.recordWith(
        call,
        undefined,
        ({ name: _, occurrence, ...record }) =>
          store.change({
            ...record,
            ...stateKey,
            entry: { name: entry, occurrence },
            name,
            value: encryptState(encryptor, stateKey, name, bytes),
            tookMs: performance.now() - started,
          }),
      )
      if (existing) journal.adopt(existing)
      if (bytes === null) this.#values?.delete(name)
      else this.#values?.set(name, bytes)
    })
  }

  #load(): Promise<Map<string, Buffer>> {
    const { store, encryptor, stateKey, isStopped } = this.#object
    return readState(store, encryptor, stateKey, isStopped)
  }

  /** Runs state operations one after the other, in the order of the calls. */
  #serialize<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(work)
    this.#lastTurn = turn.catch(noop)
    return this.trackActive(turn)
  }
}

/** @throws PawlError `invalid-option` */
function parseStateName(what: string, name: unknown): string {
  return parseOptions(stateNameSchema, { name }, `state.${what}()`).name
}

const noop = () => {}
