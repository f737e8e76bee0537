import { conform } from './conform.ts'
import { openTypeorm } from './orms/typeorm.ts'

conform('typeorm', openTypeorm)
