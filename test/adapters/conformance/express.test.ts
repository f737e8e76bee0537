import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { express4Driver, express5Driver } from './drivers/express.ts'

conform([express5Driver])
// The version before shares almost all of the code: each third case here, all of them in the proofs.
conform([express4Driver], { every: cases(3, { proof: 1 }) })
