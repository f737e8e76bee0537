import { randomBytes } from 'node:crypto'
import { afterAll } from 'vitest'
import type { TestDatabase } from './database.ts'

/** An ordinary role, dropped with all it owns after the test file's tests. */
export function withRoles(database: TestDatabase): (grants: string) => Promise<string> {
  const names: string[] = []
  afterAll(async () => {
    for (const name of names) {
      await database.pool.query(`drop owned by ${name} cascade; drop role ${name}`)
    }
  })
  /**
   * @param sql run by a superuser; ROLE stands for the role's name
   * @returns the database's URL for the role
   */
  return async (sql) => {
    const name = `pawl_test_${randomBytes(6).toString('hex')}`
    await database.pool.query(`create role ${name} login password 'secret'`)
    names.push(name)
    await database.pool.query(sql.replaceAll('ROLE', name))
    const url = new URL(database.url)
    url.username = name
    url.password = 'secret'
    return url.href
  }
}
