import { describe, expect, it } from 'vitest'
import { sources } from '../helpers/sources.ts'
import { printInterfaces } from './interface.ts'

describe('the public interface', () => {
  const subpaths = sources()
  const printed = printInterfaces(subpaths.map(({ file }) => file))

  it.each(subpaths.map(({ name }, i) => ({ name, text: printed[i] })))(
    'of $name is the recorded one',
    async ({ name, text }) => {
      const file = `./interface/${name.replaceAll('/', '-')}.txt`
      await expect(text).toMatchFileSnapshot(file)
    },
  )
})
