/**
 * A failure to start that its reader can mend. The message says what is wrong and what to do, in plain
 * words, and is printed without a stack trace.
 */
export class StartError extends Error {
  override name = 'StartError'
}

/** What to print of an error: the message of a StartError, the stack of any other. */
export function printable(error: unknown): string {
  if (error instanceof StartError) return error.message
  return (error instanceof Error && error.stack) || String(error)
}

/** The command that started this program, for advice such as `PORT=3001 npm start`. */
export function startCommand(): string {
  const script = process.env.npm_lifecycle_event
  if (!script?.startsWith('example:')) return 'npm start'
  return `npm run ${script}`
}
