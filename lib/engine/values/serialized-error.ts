/** Turns an error into a plain object for storage, and such an object back into an error. */

import {
  PawlError,
  type PawlErrorCode,
  StepInterruptedError,
  TerminalError,
} from '../../errors/index.ts'

/** An error as a plain object. Stored in journals: the names of these properties must not change. */
export interface SerializedError {
  /** The nearest class of `CLASSES`, or `Error`. */
  type: string
  name: string
  message: string
  stack: string | undefined
  /** Undefined if the error has no cause; the cause itself may be undefined. */
  cause: { value: unknown } | undefined
  /** The errors of an AggregateError. */
  errors: unknown[] | undefined
  /** The error's own enumerable properties. */
  own: Record<string, unknown>
}

/** For each class that an error can be restored as: how to make an instance. */
const FACTORIES: Record<string, (serialized: SerializedError) => Error> = {
  TerminalError: ({ message }) => new TerminalError(message),
  StepInterruptedError: ({ own }) => new StepInterruptedError(String(own.step)),
  PawlError: ({ message, own }) => {
    const error = new PawlError(own.code as PawlErrorCode, message, String(own.hint))
    error.message = message
    return error
  },
  AggregateError: ({ message, errors }) => new AggregateError(errors ?? [], message),
  EvalError: ({ message }) => new EvalError(message),
  RangeError: ({ message }) => new RangeError(message),
  ReferenceError: ({ message }) => new ReferenceError(message),
  SyntaxError: ({ message }) => new SyntaxError(message),
  TypeError: ({ message }) => new TypeError(message),
  URIError: ({ message }) => new URIError(message),
  Error: ({ message }) => new Error(message),
}

const CLASSES = [
  TerminalError,
  StepInterruptedError,
  PawlError,
  AggregateError,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
]

/** Copies all parts of an error into a plain object. */
export function serializeError(error: Error): SerializedError {
  const { name, message, stack } = error
  const own: Record<string, unknown> = { ...error }
  return {
    type: CLASSES.find((type) => error instanceof type)?.name ?? 'Error',
    name: String(name),
    message: String(message),
    stack: typeof stack === 'string' ? stack : undefined,
    cause: 'cause' in error && !('cause' in own) ? { value: error.cause } : undefined,
    errors: error instanceof AggregateError && !('errors' in own) ? [...error.errors] : undefined,
    own,
  }
}

/** Makes an error of the nearest class, with the serialized properties. */
export function deserializeError(serialized: SerializedError): Error {
  const makeError = FACTORIES[serialized.type] ?? (FACTORIES.Error as (typeof FACTORIES)[string])
  const error = makeError(serialized)
  const defineHidden = (name: string, value: unknown) =>
    Object.defineProperty(error, name, {
      value,
      configurable: true,
      writable: true,
      enumerable: false,
    })
  defineHidden('stack', serialized.stack)
  if (serialized.cause) defineHidden('cause', serialized.cause.value)
  Object.assign(error, serialized.own)
  if (error.name !== serialized.name) defineHidden('name', serialized.name)
  return error
}
