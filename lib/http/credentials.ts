/** Recognizes headers and query parameters that carry credentials, so that stored requests leave them out. */

/** Header names under which clients and proxies send credentials. */
const CREDENTIAL_HEADER =
  /auth(?!or(?!iz))|bearer|cookie|token|secret|passw|session|[cx]srf|signature|credential|jwt|oidc|saml|assertion|dpop|\b(otp|cert)|(access|account|admin|api|app|function|functions|license|master|private|service|shared|subscription)[-_]?key/i

/**
 * Query parameters of OAuth (RFC 6750, section 2.3), signed URLs and API keys. Whole names only, so that
 * similar names such as `page_token` are kept.
 */
const CREDENTIAL_PARAMETER =
  /^(x-(amz|goog)-(credential|security-token|signature)|((access|auth|bearer|id|refresh|session)[-_]?)?token|(api|access)[-_]?key|(client[-_]?)?secret|assertion|authorization|credentials?|jwt|passw(or)?d|pwd|sig|signature)$/i

/** Whether a header of this name carries credentials. */
export function isCredentialHeader(header: string): boolean {
  return CREDENTIAL_HEADER.test(header)
}

/** The URL without the query parameters that carry credentials; everything else is unchanged. */
export function withoutCredentialParameters(url: string): string {
  const start = url.indexOf('?')
  if (start < 0) return url
  const kept = url
    .slice(start + 1)
    .split('&')
    .filter((parameter) => !CREDENTIAL_PARAMETER.test(nameOf(parameter)))
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
