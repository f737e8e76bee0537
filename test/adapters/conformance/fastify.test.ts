import { conform } from './conform.ts'
import { fastify4Driver, fastify5Driver } from './drivers/fastify.ts'

conform(fastify4Driver, fastify5Driver)
