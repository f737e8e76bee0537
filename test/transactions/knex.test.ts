import { conform } from './conform.ts'
import { openKnex } from './orms/knex.ts'

conform('knex', openKnex)
