import { PawlError } from '../../lib/index.ts'

/** The PawlError that `work` throws. Fails if it throws none, or another error. */
export function thrown(work: () => unknown): PawlError {
  try {
    work()
  } catch (error) {
    if (error instanceof PawlError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}
