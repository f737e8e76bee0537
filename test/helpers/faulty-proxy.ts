import http from 'node:http'

/** What becomes of one request on its way through the proxy. */
export type Fault =
  | 'none'
  /** The connection is reset, and the server never sees the request. */
  | 'reset before'
  /** The server answers, then the connection is reset. */
  | 'reset after'
  /** The client gets the head and half of the body, then the connection ends. */
  | 'reset in the middle'
  /** 503 from the proxy, and the server never sees the request. */
  | '503 before'
  /** The server answers, but the client gets a 502 from the proxy. */
  | '502 after'
  /** The server answers, but nothing reaches the client until it hangs up. */
  | 'slow'

export interface FaultyProxy {
  url: string
  port: number
  /** How often each fault happened. */
  happened: Map<Fault, number>
  close(): Promise<void>
}

/**
 * An HTTP proxy that loses requests and answers.
 * @param target the server's URL
 * @param choose the fault for a request
 */
export async function startFaultyProxy(
  target: string,
  choose: (request: http.IncomingMessage) => Fault,
): Promise<FaultyProxy> {
  const { hostname, port } = new URL(target)
  const agent = new http.Agent({ keepAlive: true })
  const happened = new Map<Fault, number>()

  /** The server's whole answer; it gets the request even if the client has hung up meanwhile. */
  const forward = async (request: http.IncomingMessage) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    return new Promise<{ response: http.IncomingMessage; body: Buffer }>((resolve, reject) => {
      const { method, url: path, headers } = request
      const outgoing = http.request({ agent, hostname, port, method, path, headers })
      outgoing.on('error', reject)
      outgoing.on('response', async (response) => {
        const body: Buffer[] = []
        for await (const chunk of response) body.push(chunk)
        resolve({ response, body: Buffer.concat(body) })
      })
      outgoing.end(Buffer.concat(chunks))
    })
  }

  const server = http.createServer(async (request, answer) => {
    const { socket } = request
    const fault = choose(request)
    happened.set(fault, (happened.get(fault) ?? 0) + 1)
    try {
      if (fault === 'reset before') return socket.resetAndDestroy()
      if (fault === '503 before') {
        request.resume()
        return answer.writeHead(503).end('no server')
      }
      const { response, body } = await forward(request)
      if (fault === 'reset after') return socket.resetAndDestroy()
      if (fault === '502 after') return answer.writeHead(502).end('bad gateway')
      if (fault === 'slow') return
      answer.writeHead(response.statusCode as number, {
        ...response.headers,
        'content-length': body.length,
      })
      if (fault === 'none') return answer.end(body)
      answer.write(body.subarray(0, body.length / 2), () => socket.destroy())
    } catch {
      socket.destroy() // The client has hung up while it sent, or the server is gone.
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port: own } = server.address() as { port: number }
  return {
    url: `http://127.0.0.1:${own}`,
    port: own,
    happened,
    async close() {
      server.closeAllConnections()
      agent.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
