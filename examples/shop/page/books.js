/** The orders and the provider's ledger. */
import { el, price, showList } from './dom.js'

const $ = (id) => document.getElementById(id)

export function showBooks(story, busy, { orders, ledger, database, providerPid }) {
  $('database').textContent = database ?? ''
  $('provider').textContent = providerPid === null ? '' : `provider, pid ${providerPid}`
  $('order-count').textContent = orders.length
  $('charge-count').textContent = ledger.length

  const isExtra = (cart, index, carts) => carts.indexOf(cart) < index
  const oldestFirst = orders.toReversed()
  const orderedCarts = oldestFirst.map(({ cart }) => cart)
  const orderRows = oldestFirst.map((order, index) => ({
    ...order,
    current: order.cart === story?.cart,
    extra: isExtra(order.cart, index, orderedCarts),
  }))
  const chargedCarts = ledger.map(({ reference }) => reference)
  const chargeRows = ledger.map((charge, index) => ({
    ...charge,
    current: charge.reference === story?.cart,
    extra: isExtra(charge.reference, index, chargedCarts),
    pending: busy && charge.reference === story?.cart,
    lost: !charge.refunded && !orders.some((order) => order.charge === charge.id),
  }))
  showList($('orders'), orderRows.reverse(), orderRow)
  showList($('ledger'), chargeRows.reverse(), chargeRow)
}

function orderRow({ item, amount, cart, attempt, pid, current, extra, cancelled }) {
  const made = attempt === null ? `by pid ${pid}` : `attempt ${attempt}, by pid ${pid}`
  return row(current, extra, [
    el('b', {}, item),
    el('b', {}, price(amount)),
    el('span', {}, `cart ${cart}`),
    orderTag({ attempt, extra, cancelled, made }),
  ])
}

function orderTag({ attempt, extra, cancelled, made }) {
  if (cancelled) return tag('', 'cancelled')
  return extra ? tag('bad', 'ordered again') : tag(attempt > 1 ? 'good' : '', made)
}

function chargeRow({ id, amount, reference, current, ...charge }) {
  const { extra, lost, pending } = charge
  return row(current, extra || (lost && !pending), [
    el('b', { className: 'mono' }, id),
    el('b', {}, price(amount)),
    el('span', {}, `cart ${reference}`),
    chargeTag(charge),
  ])
}

function chargeTag({ asked, extra, lost, pending, refunded }) {
  if (refunded) return tag('', 'charged and refunded')
  if (lost) return pending ? tag('', 'no order yet') : tag('bad', 'charged, no order')
  if (extra) return tag('bad', 'charged again')
  return asked > 1
    ? tag('good', `asked ${asked} times, charged once`)
    : tag('', 'asked once, charged once')
}

const tag = (tone, text) => el('span', { className: tone && `tag ${tone}` }, text)

function row(current, wrong, children) {
  const item = el('li', {}, ...children)
  item.classList.toggle('current', current)
  item.classList.toggle('wrong', wrong)
  return item
}
