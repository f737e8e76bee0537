import { ServerResponse } from 'node:http'
import { rawHeaderNames } from './server-response.ts'

/**
 * Methods that let a handler go on setting headers although the response has been answered in its
 * place: they work on a response that is connected to nobody, which begins with the headers so far.
 */
export function shadowHeaders(response: ServerResponse): object {
  const shadow = new ServerResponse(response.req)
  for (const name of rawHeaderNames(response)) {
    shadow.setHeader(name, response.getHeader(name) as string)
  }
  const methods: Partial<ServerResponse> = {
    setHeader: (...args) => {
      shadow.setHeader(...args)
      return response
    },
    appendHeader: (...args) => {
      shadow.appendHeader(...args)
      return response
    },
    setHeaders: (...args) => {
      shadow.setHeaders(...args)
      return response
    },
    removeHeader: (name) => shadow.removeHeader(name),
    getHeader: (name) => shadow.getHeader(name),
    getHeaders: () => shadow.getHeaders(),
    getHeaderNames: () => shadow.getHeaderNames(),
    hasHeader: (name) => shadow.hasHeader(name),
  }
  return Object.assign(methods, { getRawHeaderNames: () => rawHeaderNames(shadow) })
}
