/** Validates a step's value with the zod schema of its `schema` option. */

import { z } from 'zod'
import { PawlError } from '../../errors/index.ts'

/**
 * Returns the value as the step's schema parses it; without a schema, returns it unchanged.
 * @param origin whether the step has just returned the value, or an earlier attempt recorded it
 * @throws PawlError `value-invalid`
 */
export async function validateValue(
  name: string,
  schema: z.ZodType | undefined,
  value: unknown,
  origin: 'returned' | 'recorded',
): Promise<unknown> {
  if (!schema) return value
  const result = await schema.safeParseAsync(value)
  if (result.success) return result.data
  throw new PawlError(
    'value-invalid',
    origin === 'returned'
      ? `Step "${name}" returned a value that its schema refuses: ${z.prettifyError(result.error)}.`
      : `The recorded value of step "${name}" no longer fits its schema: ${z.prettifyError(result.error)}.`,
    origin === 'returned'
      ? 'The value was not recorded; correct the step or its schema.'
      : 'Let the schema accept what earlier versions recorded, or give the step another name.',
    result.error,
  )
}
