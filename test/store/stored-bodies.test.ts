import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { Database, Query } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, storeOver } from '../helpers/store.ts'

const database = withDatabase()
const MIB = 1024 ** 2

/** A store, and how many bytes of bodies each of its statements has read. */
async function measured() {
  const real = new NodePostgres(database.pool, 30_000, false)
  const bytes: number[] = []
  const query: Query = async (sql, values) => {
    const rows = await real.query(sql, values)
    const buffers = rows.flat().filter((value) => value instanceof Uint8Array) as Uint8Array[]
    bytes.push(buffers.reduce((sum, buffer) => sum + buffer.length, 0))
    return rows
  }
  const db: Database = Object.assign(Object.create(real), { query })
  return { side: await storeOver(db), bytes }
}

describe('Replays of large bodies', () => {
  it('are read a few megabytes at a time, and never together with a claim', async () => {
    const { side, bytes } = await measured()
    const large = Array.from({ length: 40 }, () => ({
      claim: claimOf(),
      body: randomBytes(MIB),
    }))
    for (const { claim, body } of large) {
      await side.store.complete({
        ...completionOf(await claimNew(side, claim), ''),
        outcome: { status: 200, headers: Buffer.from('[]'), body },
      })
    }
    bytes.splice(0)
    const [small, ...replays] = await Promise.all([
      side.store.claim(claimOf()),
      ...large.map(({ claim }) => side.store.claim(claim)),
    ])
    expect(small).toHaveProperty('claimed')
    replays.forEach((replay, i) => {
      const { outcome } = ('found' in replay && replay.found) || {}
      expect(outcome?.body?.equals(large[i]!.body)).toBe(true)
      expect(outcome).not.toHaveProperty('largeBody')
    })
    // One statement with all claims, and then bodies alone.
    expect(bytes[0]).toBeLessThan(100_000)
    expect(Math.max(...bytes)).toBeLessThanOrEqual(8 * MIB)
    expect(bytes.filter((n) => n >= MIB)).toHaveLength(5)
  })

  it('at the limit of what is read at once are read with it', async () => {
    const { side, bytes } = await measured()
    for (const [size, statements] of [
      [16 * 1024, 1],
      [16 * 1024 + 1, 2],
      [0, 1],
    ] as const) {
      const claim = claimOf()
      const body = randomBytes(size)
      await side.store.complete({
        ...completionOf(await claimNew(side, claim), ''),
        outcome: { status: 200, headers: Buffer.from('[]'), body },
      })
      bytes.splice(0)
      expect((await side.store.read(claim.id))?.outcome?.body).toEqual(body)
      expect(bytes).toHaveLength(statements)
    }
  })

  it('whose execution is deleted meanwhile are not there', async () => {
    const { side } = await measured()
    const claim = claimOf()
    await side.store.complete({
      ...completionOf(await claimNew(side, claim), ''),
      outcome: { status: 200, headers: Buffer.from('[]'), body: randomBytes(MIB) },
    })
    const real = side.db.query
    side.db.query = async (sql, values) => {
      const rows = await real(sql, values)
      await database.pool.query('delete from pawl.executions where id = $1', [claim.id])
      return rows
    }
    expect(await side.store.claim(claim)).toEqual({ found: null })
  })
})
