import { z } from 'zod'
import { PawlError } from '../../errors/index.ts'

/**
 * What a step's schema makes of its value.
 * @param origin where the value comes from: the step that just ran, or the journal
 * @throws PawlError `value-invalid`
 */
export async function fit(
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
      ? 'It is not recorded; correct the step or its schema.'
      : 'Accept what earlier versions recorded, or give the step another name.',
    result.error,
  )
}
