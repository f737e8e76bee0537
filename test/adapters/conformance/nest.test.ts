import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { nestExpressDriver, nestFastifyDriver } from './drivers/nest.ts'

// It shares most of the code with Express and Fastify: each sixth case here, all of them in the proofs.
conform([nestExpressDriver, nestFastifyDriver], { every: cases(6, { proof: 1 }) })
