import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const here = new URL('./', import.meta.url)
/** As the file that it is: npx is a process of its own, and takes as long. */
const PRISMA = fileURLToPath(
  new URL('../../../node_modules/prisma/build/index.js', import.meta.url),
)
let generated: Promise<unknown> | undefined

/** Generates the client of schema.prisma into ./generated, which git ignores. */
export function generate(): Promise<unknown> {
  const arguments_ = [PRISMA, 'generate', '--schema', 'schema.prisma']
  generated ??= promisify(execFile)(process.execPath, arguments_, {
    cwd: fileURLToPath(here),
    env: {
      ...process.env,
      // Generating needs no engine, but would download one if it were not told of a file that is there.
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
  })
  return generated
}

/** The generated module. */
export async function generatedClient(): Promise<Record<string, unknown>> {
  await generate()
  return import(/* @vite-ignore */ new URL('generated/client.ts', here).href)
}
