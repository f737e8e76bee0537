/**
 * The customer: Pawl's client, as any page would use it. It sends the order with a key, and when no final
 * answer comes, sends the same bytes with the same key again. There is no other retry on this page.
 */
import { createIdempotentFetch } from './pawl/client/index.js'

/** How often the customer asks: for as long as a slow machine takes to restart the shop. */
export const PATIENT = 60

/**
 * @param hear is told of each attempt, from 1, at its beginning, at its end, and before the next one
 * @returns the answer; null if there is none
 */
export async function order({ path, key, body, maxAttempts, signal }, hear) {
  let attempts = 0
  // One client for each order, since each tells its own story. An app has one for all of them.
  const fetch = createIdempotentFetch({
    maxAttempts,
    baseDelay: 400,
    maxDelay: 1_500,
    onRetry: ({ attempts, delay }) => hear(attempts, { retryInMs: delay }),
    fetch: async (url, init) => {
      attempts += 1
      const nth = attempts
      const began = performance.now()
      const ended = (result) => hear(nth, { ms: Math.round(performance.now() - began), ...result })
      hear(nth, { status: null, error: null })
      try {
        const response = await throughTheLine(url, init)
        ended(await readAnswer(response.clone()))
        return response
      } catch (error) {
        ended({ error: error.message })
        throw error
      }
    },
  })
  return fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', customer: 'ada' },
    key,
    body,
    signal,
  }).catch((error) => {
    if (error.code === 'no-answer') return null
    throw error
  })
}

/** Through the line (see line.ts) a broken connection is not an error in the browser's console. */
async function throughTheLine(url, init) {
  const { headers, body } = await fetch(`line${url}`, init)
  const error = headers.get('shop-error')
  if (error) throw new TypeError(error)
  return new Response(body, { status: Number(headers.get('shop-status')), headers })
}

async function readAnswer(response) {
  const answer = await response.json().catch(() => ({}))
  const { title, detail, attempt } = answer
  return {
    status: response.status,
    replayed: response.headers.get('idempotent-replayed') === 'true',
    // Which attempt of the shop's recorded the order.
    attempt: attempt ?? null,
    problem: title ? { title, detail } : null,
  }
}
