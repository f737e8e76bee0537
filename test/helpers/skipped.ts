/**
 * Says on the console why something is skipped.
 * @param reason undefined: it is not skipped
 * @returns whether it is, for skipIf()
 */
export function skipped(what: string, reason: string | undefined): boolean {
  if (reason !== undefined) console.warn(`skipped: ${what}: ${reason}`)
  return reason !== undefined
}
