import { fileURLToPath } from 'node:url'
import express, { type Express, type RequestHandler } from 'express'

const shared = fileURLToPath(new URL('./page/', import.meta.url))

/** Serves an example's page, from its folder and from what all of them share. */
export function servePage(app: Express, folder: URL): void {
  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'content-security-policy': "default-src 'self'" })
    next()
  })
  app.use(express.static(fileURLToPath(folder)), express.static(shared))
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
