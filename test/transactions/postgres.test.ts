import { conform } from './conform.ts'
import { openPostgres } from './orms/postgres.ts'

conform('postgres.js', openPostgres)
