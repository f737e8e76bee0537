import { StepInterruptedError, TerminalError } from '../../errors/index.ts'

/** What is kept of an error. */
export interface ErrorParts {
  /** The nearest class that every process knows. */
  type: string
  name: string
  message: string
  stack: string | undefined
  /** There is one, whatever it is. */
  cause: { value: unknown } | undefined
  /** Of an AggregateError. */
  errors: unknown[] | undefined
  /** Its own properties, that anybody may have given it. */
  own: Record<string, unknown>
}

/** The classes that an error comes back as, and how each is made. */
const TYPES: Record<string, (parts: ErrorParts) => Error> = {
  TerminalError: ({ message }) => new TerminalError(message),
  StepInterruptedError: ({ own }) => new StepInterruptedError(String(own.step)),
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
  AggregateError,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
]

/** Takes an error apart. */
export function partsOf(error: Error): ErrorParts {
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

/** Puts an error together again. */
export function errorOf(parts: ErrorParts): Error {
  const error = (TYPES[parts.type] ?? (TYPES.Error as (parts: ErrorParts) => Error))(parts)
  const hide = (name: string, value: unknown) =>
    Object.defineProperty(error, name, {
      value,
      configurable: true,
      writable: true,
      enumerable: false,
    })
  hide('stack', parts.stack)
  if (parts.cause) hide('cause', parts.cause.value)
  Object.assign(error, parts.own)
  if (error.name !== parts.name) hide('name', parts.name)
  return error
}
