import { conform } from './conform.ts'
import { honoDriver } from './drivers/hono.ts'

conform([honoDriver])
