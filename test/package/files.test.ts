import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')

/** The TypeScript files below a folder of the repository, by their paths in it. */
function sourcesIn(folder: string): { path: string; text: string }[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
}

describe('the files of lib/', () => {
  const sources = sourcesIn('lib')

  it('begin with a comment that says what the file is for', () => {
    const silent = sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text))
    expect(silent.map(({ path }) => path)).toEqual([])
  })

  it('have at most 400 lines', () => {
    const long = sources.filter(({ text }) => text.split('\n').length > 401)
    expect(long.map(({ path }) => path)).toEqual([])
  })

  it('are the ones that ARCHITECTURE.md names', () => {
    const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8')
    const named = [...text.matchAll(/`([\w/-]+\.ts)`/g)].map(([, path]) => join('lib', path ?? ''))
    expect(named.length).toBeGreaterThan(40)
    const paths = new Set(sources.map(({ path }) => path))
    expect(named.filter((path) => !paths.has(path))).toEqual([])
  })
})
