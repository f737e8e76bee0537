import { conform } from './conform.ts'
import { koaDriver } from './drivers/koa.ts'

conform([koaDriver])
