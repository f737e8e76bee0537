/**
 * What is thrown to answer: a Response (as React Router has it), or the error by which `redirect()` and
 * `notFound()` of Next.js leave a route handler. Null for an error that is one.
 */
export function thrownResponse(thrown: unknown): Response | null {
  if (thrown instanceof Response) return thrown
  const digest = (thrown as { digest?: unknown } | null | undefined)?.digest
  return typeof digest === 'string' ? nextResponse(digest.split(';')) : null
}

/** NEXT_REDIRECT;type;url;status; and NEXT_HTTP_ERROR_FALLBACK;status. */
function nextResponse([code, ...parts]: string[]): Response | null {
  if (code === 'NEXT_NOT_FOUND') return new Response(null, { status: 404 })
  if (code === 'NEXT_HTTP_ERROR_FALLBACK') return new Response(null, { status: Number(parts[0]) })
  if (code !== 'NEXT_REDIRECT') return null
  // The URL may itself contain semicolons.
  const Location = parts.slice(1, -2).join(';')
  return new Response(null, { status: Number(parts.at(-2)), headers: { Location } })
}
