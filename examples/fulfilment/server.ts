import { serve } from '../support/serve.ts'
import { createApp } from './app.ts'

await serve(createApp)
