import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { PawlError } from '../errors/index.ts'
import type { Pawl } from '../pawl.ts'

/**
 * The Pawl that a module of the app exports: as `pawl`, or by default. TypeScript is loaded where Node
 * does.
 * @throws PawlError `invalid-option`
 */
export async function loadPawl(file: string): Promise<Pawl> {
  const path = resolve(file)
  if (!existsSync(path)) {
    throw new PawlError(
      'invalid-option',
      `There is no module ${path}.`,
      'Give the file that exports your Pawl, with its extension.',
    )
  }
  const module = await load(path)
  // What CommonJS exports is the default export.
  const inner = module.default as { pawl?: unknown } | undefined
  const pawl = [module.pawl, module.default, inner?.pawl].find(isPawl)
  if (pawl) return pawl
  const names = Object.keys(module).join(', ') || 'nothing'
  throw new PawlError(
    'invalid-option',
    `${path} exports no Pawl; it exports ${names}.`,
    'Write export const pawl = new Pawl({ … }), or export it by default, and define its workflows in that module or in what it imports.',
  )
}

async function load(path: string): Promise<Record<string, unknown>> {
  try {
    return await import(pathToFileURL(path).href)
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    if (code === 'ERR_UNKNOWN_FILE_EXTENSION') {
      throw new PawlError(
        'invalid-option',
        `This version of Node (${process.version}) cannot load ${path}.`,
        `Compile it, use Node 22.18 or later, or install tsx and set NODE_OPTIONS='--import tsx'.`,
      )
    }
    throw new PawlError(
      'invalid-option',
      `${path} cannot be loaded: ${message}.`,
      'See the error above.',
      error,
    )
  }
}

/** By what it can do: the app may have another copy of the class than the command line. */
function isPawl(value: unknown): value is Pawl {
  const { start, stop, inside } = (value ?? {}) as Partial<Pawl>
  return typeof start === 'function' && typeof stop === 'function' && inside !== undefined
}
