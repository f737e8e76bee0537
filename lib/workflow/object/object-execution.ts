import type { ExecutionParts } from '../../engine/running-execution.ts'
import type { Sealer } from '../../engine/values/encryptor.ts'
import { decodeValue, encodeValue } from '../../engine/values/value-codec.ts'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import type { StateKey, StateStore } from '../../store/state-store.ts'
import { stateName } from '../option-schemas.ts'
import { checkSize } from '../workflow-outcome.ts'
import { RunningWorkflow, type WorkflowParts } from '../running-workflow.ts'
import type { WorkflowExecution } from '../workflow-execution.ts'
import { type ObjectState, type ReadonlyState, readState, sealState } from './object-state.ts'

/** What a handler of an object holds of its execution. */
export interface ObjectExecution extends WorkflowExecution {
  /** The key of the object that was called: `cart.of(key)`. */
  readonly objectKey: string
  /** What the object keeps under this key. Nobody else changes it meanwhile. */
  readonly state: ObjectState
}

/** What a handler that only reads holds of its execution. */
export interface ReaderExecution extends WorkflowExecution {
  readonly objectKey: string
  /** What the object kept under this key at the first look: one moment, whatever changes meanwhile. */
  readonly state: ReadonlyState
}

/** What the execution of an object's handler needs besides. */
export interface ObjectParts {
  at: StateKey
  readOnly: boolean
  store: StateStore
  sealer: Sealer
  /** The largest value, in bytes. */
  maxBytes: number
  stopped: () => boolean
}

/** The execution of an object's handler in an attempt that is running here. */
export class RunningObject extends RunningWorkflow implements ObjectExecution {
  readonly #object: ObjectParts
  /** What is kept, encoded, as of the first look, with what this attempt has changed since. */
  #kept: Map<string, Buffer> | undefined
  /** One after the other, in the order of the calls. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(parts: ExecutionParts, own: WorkflowParts, object: ObjectParts) {
    super(parts, own)
    this.#object = object
  }

  get objectKey(): string {
    return this.#object.at.key
  }

  /** Whether a call of that object and key would wait for this one to end. */
  override holds({ object, key }: StateKey): boolean {
    const { at, readOnly } = this.#object
    return !readOnly && at.object === object && at.key === key
  }

  override get state(): ObjectState {
    return this.#state
  }

  readonly #state: ObjectState = {
    get: async <T>(name: string) => {
      const at = nameOf('get', name)
      return (await this.#read(`state.get ${at}`, (kept) => decodeValue(kept.get(at) ?? null))) as
        | T
        | undefined
    },
    keys: async () =>
      (await this.#read('state.keys', (kept) => [...kept.keys()].sort())) as string[],
    set: (name, value) => this.#change('set', name, value),
    delete: (name) => this.#change('delete', name, undefined),
  }

  async #read(entry: string, look: (kept: Map<string, Buffer>) => unknown): Promise<unknown> {
    const { journal, steps } = this.parts
    this.checkUse(entry, noop, 'state')
    const use = journal.use(entry, 'state')
    if (use.entry?.completed) return this.track(journal.replay(use, use.entry))
    return this.#inTurn(async () => {
      const started = performance.now()
      this.#kept ??= await this.#load()
      const output = look(this.#kept)
      // By the current attempt only: the key may have gone on to the next call.
      const other = await journal.recordBy(use, output, (record) =>
        steps.record({
          ...record,
          kind: 'state',
          error: null,
          tookMs: Math.round(performance.now() - started),
          completed: true,
          onlyIfCurrent: true,
        }),
      )
      return other ? journal.adopt(other) : output
    })
  }

  async #change(what: 'set' | 'delete', name: string, value: unknown): Promise<void> {
    const { at, readOnly, store, sealer, maxBytes } = this.#object
    nameOf(what, name)
    if (readOnly) {
      throw new PawlError(
        'read-only',
        `state.${what}("${name}") was called by a reader of object "${at.object}".`,
        'Put it among the handlers: they run one at a time for each key.',
      )
    }
    const { journal } = this.parts
    const entry = `state.${what} ${name}`
    this.checkUse(entry, noop, 'state')
    const bytes = encodeValue(value)
    checkSize(bytes, maxBytes, `The state "${name}" of object "${at.object}"`)
    const use = journal.use(entry, 'state')
    if (use.entry?.completed) return void (await this.track(journal.replay(use, use.entry)))
    await this.#inTurn(async () => {
      const started = performance.now()
      const other = await journal.recordBy(use, undefined, ({ name: _, occurrence, ...record }) =>
        store.change({
          ...record,
          ...at,
          entry: { name: entry, occurrence },
          name,
          value: sealState(sealer, at, name, bytes),
          tookMs: performance.now() - started,
        }),
      )
      if (other) journal.adopt(other)
      if (bytes === null) this.#kept?.delete(name)
      else this.#kept?.set(name, bytes)
    })
  }

  #load(): Promise<Map<string, Buffer>> {
    const { store, sealer, at, stopped } = this.#object
    return readState(store, sealer, at, stopped)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(noop)
    return this.track(turn)
  }
}

/** @throws PawlError `invalid-option` */
function nameOf(what: string, name: unknown): string {
  return parseOptions(stateName, { name }, `state.${what}()`).name
}

const noop = () => {}
