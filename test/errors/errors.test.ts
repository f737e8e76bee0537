import { readdir, readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'

const root = new URL('../../', import.meta.url)
const text = (path: string) => readFile(new URL(path, root), 'utf8')

it('Every code that an error can carry is documented, and every class', async () => {
  const files = await readdir(new URL('lib/errors/', root))
  const source = (await Promise.all(files.map((file) => text(`lib/errors/${file}`)))).join('\n')
  const docs = await text('docs/errors.md')
  const union = /type PawlErrorCode =([\s\S]*?)\n\n/.exec(source)?.[1] ?? ''
  const codes = [...union.matchAll(/'([a-z-]+)'/g)].map((match) => match[1])
  expect(codes.length).toBeGreaterThan(25)
  const classes = [...source.matchAll(/export class (\w+)/g)].map((match) => match[1])
  const missing = [...codes, ...classes].filter((name) => !docs.includes(`\`${name}\``))
  expect(missing).toEqual([])
  const documented = [...docs.matchAll(/^\| `([a-z-]+)`/gm)].map((match) => match[1])
  expect(documented.filter((code) => !codes.includes(code))).toEqual([])
})
