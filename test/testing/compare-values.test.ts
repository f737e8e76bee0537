import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { commonPattern, findDifferences } from '../../lib/testing/compare-values.ts'

const pathsOf = (expected: unknown, actual: unknown) =>
  findDifferences(expected, actual, 'it').map(({ path }) => path)

describe('findDifferences()', () => {
  it('names each place', () => {
    expect(pathsOf({ a: [{ b: 1 }, 2], c: 3 }, { a: [{ b: 2 }, 2], d: 4 })).toEqual([
      'it.a[0].b',
      'it.c',
      'it.d',
    ])
  })

  it('takes arrays of another length, and values that are no plain objects, as a whole', () => {
    const one = { list: [1], map: new Map([[1, { a: 1 }]]), date: new Date(1), bytes: Buffer.of(1) }
    const two = { list: [], map: new Map([[1, { a: 2 }]]), date: new Date(2), bytes: Buffer.of(2) }
    expect(pathsOf(one, two)).toEqual(['it.list', 'it.map', 'it.date', 'it.bytes'])
    expect(pathsOf(one, structuredClone(one))).toEqual(['it.bytes']) // A Buffer is not its clone.
  })

  it('takes what is undefined for missing, and NaN for NaN', () => {
    expect(pathsOf({ a: undefined }, {})).toEqual([])
    expect(pathsOf({ a: NaN }, { a: NaN })).toEqual([])
    expect(pathsOf([null], [undefined])).toEqual(['it[0]'])
  })

  it('looks into objects of another realm, as test runners have them', () => {
    const foreign = runInNewContext('({ a: [{ b: 1 }] })')
    expect(pathsOf(foreign, runInNewContext('({ a: [{ b: 2 }] })'))).toEqual(['it.a[0].b'])
  })
})

describe('commonPattern()', () => {
  it('leaves open what differs, but not its type', () => {
    const common = commonPattern(
      { id: 1, at: 'now', all: [1, 2] },
      { id: 2, at: 'then', all: [1, 3] },
    )
    expect(pathsOf(common, { id: 7, at: '', all: [1, 9] })).toEqual([])
    expect(pathsOf(common, { id: '7', at: '', all: [2, 9] })).toEqual(['it.id', 'it.all[0]'])
    expect(inspect(common)).toBe('{ id: <any number>, at: <any string>, all: [ 1, <any number> ] }')
  })
})
