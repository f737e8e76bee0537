/** Loads the module of an app that the command line is given, and finds its Pawl. */

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { PawlError } from '../errors/index.ts'
import type { Pawl } from '../pawl.ts'

/**
 * Returns the Pawl that a module of the app exports, as `pawl` or by default. A TypeScript module works
 * if this version of Node loads TypeScript.
 * @throws PawlError `invalid-option`
 */
export async function loadPawl(file: string): Promise<Pawl> {
  const path = resolve(file)
  if (!existsSync(path)) {
    throw new PawlError(
      'invalid-option',
      `The module ${path} does not exist.`,
      'Give the file that exports your Pawl, with its extension.',
    )
  }
  const module = await importModule(path)
  // For a CommonJS module, import() gives its exports as `default`.
  const commonJs = module.default as { pawl?: unknown } | undefined
  const pawl = [module.pawl, module.default, commonJs?.pawl].find(isPawl)
  if (pawl) return pawl
  const names = Object.keys(module).join(', ') || 'nothing'
  throw new PawlError(
    'invalid-option',
    `${path} exports no Pawl; it exports ${names}.`,
    'Write export const pawl = new Pawl({ … }), or export it by default, and define its workflows in that module or in what it imports.',
  )
}

async function importModule(path: string): Promise<Record<string, unknown>> {
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

/** Checks the members, not the class: the app and the command line may load two copies of the class. */
function isPawl(value: unknown): value is Pawl {
  const { start, stop, internals } = (value ?? {}) as Partial<Pawl>
  return typeof start === 'function' && typeof stop === 'function' && internals !== undefined
}
