/** Resolves to what `look` returns once it is neither false, null nor undefined. */
export async function waitFor<T>(
  what: string,
  look: () => Promise<T> | T,
  timeoutMs = 45_000,
): Promise<NonNullable<T>> {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const result = await look()
    if (result !== false && result !== null && result !== undefined) return result as NonNullable<T>
    if (Date.now() > deadline) throw new Error(`Waited ${timeoutMs} ms in vain for ${what}.`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
