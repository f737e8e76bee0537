import { it } from 'vitest'

/**
 * Whether this run is `npm run test:proofs`, which proves the promises with as many cases as they name. It takes
 * minutes; `npm test` runs the same tests with fewer.
 */
export const isProof = process.env.PAWL_PROOF === 'full'

/**
 * How many cases a test runs.
 *
 * ```ts
 * const calls = cases(150, { proof: 1200 })
 * ```
 *
 * @param few in `npm test`
 * @param options.proof in `npm run test:proofs`
 */
export function cases(few: number, { proof }: { proof: number }): number {
  return isProof ? proof : few
}

/**
 * The variants that a test runs: in `npm run test:proofs` all of them, in `npm test` those that stand for the rest.
 *
 * ```ts
 * it.each(variants(faults, ['reset after']))('orders once through: %s', …)
 * ```
 */
export function variants<T>(all: readonly T[], representative: readonly NoInfer<T>[]): T[] {
  return [...(isProof ? all : representative)]
}

/** A test of `npm run test:proofs` alone: a variant of one that `npm test` runs, at a cost of seconds. */
export function proofOnly(name: string, test: () => Promise<void>): void {
  if (isProof) it(name, test)
}
