import { el } from './dom.js'

const away = el('p', {
  className: 'away',
  hidden: true,
  textContent: 'The server is away. This page comes back when it does.',
})
away.role = 'status'
document.body.append(away)

/** Calls `show` with the data of each event. */
export function follow(url, show) {
  const source = new EventSource(url)
  source.onopen = () => {
    away.hidden = true
  }
  // The browser asks again by itself.
  source.onerror = () => {
    away.hidden = false
  }
  source.onmessage = ({ data }) => show(JSON.parse(data))
  return source
}

/**
 * Posts JSON under one key until there is an answer: whatever happens to the server, it takes effect once.
 * (What `pawl/client` does, and more.)
 */
export async function post(url, body, key = crypto.randomUUID()) {
  for (;;) {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': `"${key}"` },
      body: JSON.stringify(body ?? {}),
    }).catch(() => null)
    if (response && ![409, 500, 502, 503, 504].includes(response.status)) return response
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}
