import { conform } from './conform.ts'
import { openKysely } from './orms/kysely.ts'

conform('kysely', openKysely)
