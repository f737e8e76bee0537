/** Headers, by the names that people give to credentials. */
const HEADER =
  /auth(?!or(?!iz))|bearer|cookie|token|secret|passw|session|[cx]srf|signature|credential|jwt|oidc|saml|assertion|dpop|\b(otp|cert)|(access|account|admin|api|app|function|functions|license|master|private|service|shared|subscription)[-_]?key/i

/** Parameters of a query: of OAuth (RFC 6750, section 2.3), signed URLs, and API keys. Not what only sounds alike. */
const PARAMETER =
  /^(x-(amz|goog)-(credential|security-token|signature)|((access|auth|bearer|id|refresh|session)[-_]?)?token|(api|access)[-_]?key|(client[-_]?)?secret|assertion|authorization|credentials?|jwt|passw(or)?d|pwd|sig|signature)$/i

/** Whether a header of this name tells who sends a request. */
export function isCredential(header: string): boolean {
  return HEADER.test(header)
}

/** A URL without the parameters that tell who sends it; all else stays as it is. */
export function withoutCredentials(url: string): string {
  const start = url.indexOf('?')
  if (start < 0) return url
  const kept = url
    .slice(start + 1)
    .split('&')
    .filter((parameter) => !PARAMETER.test(nameOf(parameter)))
  return kept.length > 0 ? `${url.slice(0, start)}?${kept.join('&')}` : url.slice(0, start)
}

function nameOf(parameter: string): string {
  const name = parameter.split('=', 1)[0] as string
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}
