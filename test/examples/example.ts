import { afterAll } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'

/** What a server has answered; each example has some of it. */
export interface Answer {
  id: string
  status: string
  error?: { message: string }
}

/** An example's server over the test file's database, and what one does to it. */
export function withExample(name: string, env: Record<string, string> = {}) {
  const database = withDatabase()
  let server: ChildApp | undefined
  // A browser that is open asks for the same address after a restart.
  let port = '0'

  afterAll(() => server?.kill())

  return {
    pool: database.pool,
    databaseUrl: database.url,

    /** Starts the server; again, if it was killed. */
    async start(more: Record<string, string> = {}): Promise<string> {
      server = await spawnApp(`../../examples/${name}/server.ts`, {
        DATABASE_URL: database.url,
        HOST: 'localhost',
        PORT: port,
        ...env,
        ...more,
      })
      port = new URL(server.url).port
      return server.url
    },

    /** Of the server. */
    get pid(): number {
      return server?.pid ?? 0
    },

    /** What a crash does. */
    async kill(): Promise<void> {
      await server?.kill()
    },

    async post(path: string, body: object = {}, headers: Record<string, string> = {}) {
      const response = await fetch(`${server?.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      })
      return {
        status: response.status,
        headers: response.headers,
        body: (await response.json()) as Answer,
      }
    },

    get url(): string {
      return server?.url ?? ''
    },

    async get(path: string): Promise<Answer> {
      return (await (await fetch(`${server?.url}${path}`)).json()) as Answer
    },

    /** One row of the first statement's. */
    async row(sql: string, values: unknown[] = []) {
      return (await database.pool.query(sql, values)).rows[0]
    },

    /** The journal of an execution: `kind name`, in order. */
    async journal(key: string): Promise<string[]> {
      const { rows } = await database.pool.query(
        `select kind || ' ' || name as entry from pawl.step_log
         where key = $1 order by position, completed_at`,
        [key],
      )
      return rows.map(({ entry }) => entry)
    },
  }
}
