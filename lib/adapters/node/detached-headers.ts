/** Lets a handler set headers after another response was sent in its place. */

import { ServerResponse } from 'node:http'
import { rawHeaderNames } from './server-response.ts'

/**
 * Header methods that work on a second ServerResponse without a connection, which starts with the present
 * headers. They replace those of the sent response, where setting a header would throw.
 */
export function detachedHeaderMethods(response: ServerResponse): object {
  const detached = new ServerResponse(response.req)
  for (const name of rawHeaderNames(response)) {
    detached.setHeader(name, response.getHeader(name) as string)
  }
  const methods: Partial<ServerResponse> = {
    setHeader: (...args) => {
      detached.setHeader(...args)
      return response
    },
    appendHeader: (...args) => {
      detached.appendHeader(...args)
      return response
    },
    setHeaders: (...args) => {
      detached.setHeaders(...args)
      return response
    },
    removeHeader: (name) => detached.removeHeader(name),
    getHeader: (name) => detached.getHeader(name),
    getHeaders: () => detached.getHeaders(),
    getHeaderNames: () => detached.getHeaderNames(),
    hasHeader: (name) => detached.hasHeader(name),
  }
  return Object.assign(methods, { getRawHeaderNames: () => rawHeaderNames(detached) })
}
