import { printable, StartError } from './start-error.ts'

/** Tells `main.ts` something. */
export function tellParent(message: object): void {
  // Once the channel is closed, sending would be an error, and nobody is there to be told.
  if (process.connected) process.send?.(message)
}

/** Calls `end` when `main.ts` is gone, whatever has happened to it, so that this process does not outlive it. */
export function endWithParent(end: () => unknown): void {
  if (process.connected) process.once('disconnect', end)
  else end()
}

/**
 * Ends this process, which could not start, with exit code 1. A StartError is told to `main.ts`, which
 * prints it; any other error is a bug, and printed here with its stack.
 */
export async function reportFailure(error: unknown): Promise<never> {
  if (error instanceof StartError && process.connected) {
    // process.exit would not wait for the message.
    await new Promise((sent) => process.send?.({ failed: error.message }, sent))
  } else console.error(printable(error))
  process.exit(1)
}
