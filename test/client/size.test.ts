import { resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '../..')

/** What a bundler makes of it, minified and compressed, as it goes over the wire. */
async function bundle(contents: string) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: root, loader: 'ts' },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    metafile: true,
    write: false,
  })
  const [output] = Object.values(metafile.outputs)
  const files = Object.entries(output?.inputs ?? {})
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([file]) => file)
  return {
    bytes: gzipSync(outputFiles[0]?.contents as Uint8Array, { level: 9 }).length,
    files,
    imports: output?.imports.map(({ path }) => path),
  }
}

describe('the size of pawl/client', () => {
  it('is under 3 kB, retry policy and all', async () => {
    const client = await bundle("export * from './lib/client/index.ts'")
    expect(client.bytes).toBeLessThan(3000)
    // Nothing is left to be imported, and no store comes along unasked.
    expect(client.imports).toEqual([])
    expect(client.files).toContain('lib/client/retry.ts')
    expect(client.files.filter((file) => !file.startsWith('lib/client/'))).toEqual([])
    expect(client.files).not.toContain('lib/client/pending-requests.ts')
  })

  it('is under 5 kB with what keeps requests', async () => {
    const both = await bundle(
      "export * from './lib/client/index.ts'; export * from './lib/client/persist.ts'",
    )
    expect(both.bytes).toBeLessThan(5000)
    expect(both.imports).toEqual([])
  })

  it('is under 4 kB with what follows a 202, which does not bring it along', async () => {
    const both = await bundle(
      "export * from './lib/client/index.ts'; export * from './lib/client/follow.ts'",
    )
    expect(both.bytes).toBeLessThan(4000)
    const alone = await bundle("export * from './lib/client/follow.ts'")
    expect(alone.bytes).toBeLessThan(1536)
    expect(alone.imports).toEqual([])
    expect(alone.files).not.toContain('lib/client/retry.ts')
  })

  it.each(['axios', 'ky'])('the plugin for %s does not bring it along', async (name) => {
    const plugin = await bundle(`export * from './lib/client/${name}.ts'`)
    expect(plugin.bytes).toBeLessThan(3000)
    expect(plugin.imports).toEqual([])
    expect(plugin.files.filter((file) => !file.startsWith('lib/client/'))).toEqual([])
  })
})
