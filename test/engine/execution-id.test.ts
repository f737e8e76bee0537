import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { executionId } from '../../lib/engine/execution-id.ts'

const name = fc
  .string({ minLength: 1 })
  .filter((text) => !text.includes('\0') && text.isWellFormed())

describe('executionId', () => {
  it('is a UUIDv8', () => {
    fc.assert(
      fc.property(name, name, (scope, key) => {
        expect(executionId(scope, key)).toMatch(
          /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
        )
      }),
    )
  })

  it('is the same in every process and version', () => {
    expect(executionId('tenant', 'key')).toBe(executionId('tenant', 'key'))
    expect(executionId('', 'abc')).toBe('609f6e36-d240-8585-988d-5cfd761f407c')
  })

  it('differs where scope or key differ, wherever one ends and the other begins', () => {
    fc.assert(
      fc.property(name, name, name, (a, b, c) => {
        expect(executionId(a + b, c)).not.toBe(executionId(a, b + c))
      }),
    )
  })
})
