import { PawlError } from '../errors/index.ts'
import type { Pawl } from '../pawl.ts'

/** @throws PawlError `invalid-option` for what is no Pawl, the mistake of who forgets the argument */
export function checkPawl(pawl: Pawl | undefined): void {
  if (typeof pawl?.find === 'function') return
  throw new PawlError(
    'invalid-option',
    'idempotency(): the first argument is not a Pawl.',
    'Give the instance: idempotency(pawl, options).',
  )
}
