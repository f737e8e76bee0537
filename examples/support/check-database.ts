import { Client } from 'pg'
import { StartError } from './start-error.ts'

const CONNECT_MS = 10_000

/** Rejects with a StartError unless the database can be reached and its user may create schemas. */
export async function checkDatabase(url: string): Promise<void> {
  let client: Client | undefined
  try {
    client = new Client({ connectionString: url, connectionTimeoutMillis: CONNECT_MS })
    client.on('error', () => {}) // A connection that breaks fails the query as well.
    await client.connect()
    const { rows } = await client.query(
      `select current_database() as database, current_user as "user",
         has_database_privilege(current_database(), 'create') as "mayCreate"`,
    )
    const { database, user, mayCreate } = rows[0]
    if (!mayCreate) {
      throw new Error(
        `its user may not create schemas (grant create on database "${database}" to "${user}")`,
      )
    }
  } catch (error) {
    throw new StartError(
      `The PostgreSQL at DATABASE_URL cannot be used: ${reason(error as Error, client)}.\n  ` +
        'Correct DATABASE_URL, or unset it to use an embedded PostgreSQL.',
    )
  } finally {
    await client?.end().catch(() => {})
  }
}

function reason(error: Error & { code?: string }, client: Client | undefined): string {
  const address = `${client?.host}:${client?.port}`
  switch (error.code) {
    case 'ECONNREFUSED':
      return `nothing listens at ${address}`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the host ${client?.host} is not known`
    case 'ERR_INVALID_URL':
      return 'it is not a URL like postgres://user:password@host:5432/database'
    case '28P01': // invalid_password
      return `the password of ${client?.user} is wrong`
  }
  if (/timeout/.test(error.message)) return `${address} does not answer within ${CONNECT_MS} ms`
  return error.message || `${error.code}`
}
