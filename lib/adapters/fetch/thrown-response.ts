/** Recognizes responses that frameworks throw: Response objects, and the redirect errors of Next.js. */

/**
 * The response for a thrown value that stands for one: a Response (React Router), or the error that
 * `redirect()` and `notFound()` of Next.js throw. Null for a real error.
 */
export function responseFromThrown(thrown: unknown): Response | null {
  if (thrown instanceof Response) return thrown
  const digest = (thrown as { digest?: unknown } | null | undefined)?.digest
  return typeof digest === 'string' ? responseFromNextDigest(digest.split(';')) : null
}

/** Digests look like `NEXT_REDIRECT;type;url;status;` or `NEXT_HTTP_ERROR_FALLBACK;status`. */
function responseFromNextDigest([code, ...parts]: string[]): Response | null {
  if (code === 'NEXT_NOT_FOUND') return new Response(null, { status: 404 })
  if (code === 'NEXT_HTTP_ERROR_FALLBACK') return new Response(null, { status: Number(parts[0]) })
  if (code !== 'NEXT_REDIRECT') return null
  // The URL may itself contain semicolons.
  const Location = parts.slice(1, -2).join(';')
  return new Response(null, { status: Number(parts.at(-2)), headers: { Location } })
}
