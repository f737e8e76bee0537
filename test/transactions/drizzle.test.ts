import { drizzle as overNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as overPostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { conform } from './conform.ts'
import { overDrizzle } from './orms/drizzle.ts'

conform('drizzle over node-postgres', async (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 3 })
  return overDrizzle(overNodePostgres({ client: pool }), () => pool.end())
})

conform('drizzle over postgres.js', async (url) => {
  const client = postgres(url, { max: 3 })
  return overDrizzle(overPostgresJs({ client }), () => client.end())
})
