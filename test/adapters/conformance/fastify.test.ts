import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { fastify4Driver, fastify5Driver } from './drivers/fastify.ts'

conform([fastify5Driver])
// The version before shares almost all of the code: each third case here, all of them in the proofs.
conform([fastify4Driver], { every: cases(3, { proof: 1 }) })
