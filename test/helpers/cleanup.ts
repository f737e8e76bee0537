const ofTests = new Set<() => Promise<unknown>>()
const ofFiles = new Set<() => Promise<unknown>>()

/**
 * Helpers that open things say here how they are closed. They are loaded once for many test files, so
 * that hooks of their own would belong to the first of them.
 */
export function afterEachTest(clean: () => Promise<unknown>): void {
  ofTests.add(clean)
}

export function afterEachFile(clean: () => Promise<unknown>): void {
  ofFiles.add(clean)
}

export async function cleanUpTest(): Promise<void> {
  for (const clean of ofTests) await clean()
}

export async function cleanUpFile(): Promise<void> {
  for (const clean of ofFiles) await clean()
}
