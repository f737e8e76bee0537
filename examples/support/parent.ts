/** Tells `main.ts` something. */
export function tellParent(message: object): void {
  // Once the channel is closed, sending would be an error, and nobody is there to be told.
  if (process.connected) process.send?.(message)
}

/** Nobody outlives `main.ts`, whatever has happened to it. */
export function endWithParent(end: () => unknown): void {
  if (process.connected) process.once('disconnect', end)
  else end()
}
