import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import express, { type Express, type RequestHandler } from 'express'

const shared = fileURLToPath(new URL('./page/', import.meta.url))

/**
 * Serves an example's page: `body.html` of its folder in the shell that all examples share, and its scripts
 * and styles from both.
 * @param styles style sheets of its own
 */
export function servePage(
  app: Express,
  folder: URL,
  title: string,
  styles: readonly string[] = [],
): void {
  const page = shell(title, styles, readFileSync(new URL('body.html', folder), 'utf8'))
  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'content-security-policy': "default-src 'self'" })
    next()
  })
  app.get('/', (_req, res) => {
    res.type('html').send(page)
  })
  app.use(express.static(fileURLToPath(folder)), express.static(shared))
}

function shell(title: string, styles: readonly string[], body: string): string {
  const links = ['theme.css', 'simple.css', ...styles].map(
    (file) => `<link rel="stylesheet" href="${file}">`,
  )
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>${title} · Pawl</title>
    <link rel="icon" href="icon.svg" type="image/svg+xml">
    ${links.join('\n    ')}
    <script src="page.js" type="module"></script>
  </head>
  <body>
${body}  </body>
</html>
`
}

/** Sends what `look` finds as server-sent events: at once, and whenever it is something else. */
export function live(look: () => Promise<unknown>, everyMs = 200): RequestHandler {
  return (req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    // How soon the browser comes back if the server dies, in ms.
    res.write('retry: 500\n\n')
    let shown = ''
    let open = true
    req.once('close', () => {
      open = false
    })
    const again = async () => {
      // A database that is away for a moment has nothing new.
      const found = JSON.stringify(await look().catch(() => null))
      if (!open) return
      if (found !== 'null' && found !== shown) {
        shown = found
        res.write(`data: ${found}\n\n`)
      }
      setTimeout(again, everyMs)
    }
    again()
  }
}
