/** Creates an element; children are elements, text, or nothing (null, false). */
export function el(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children.filter(Boolean))
  return element
}

/**
 * Makes the list show the items, touching only what has changed, so that new rows can be animated
 * and a selection in the others survives.
 */
export function showList(list, items, render) {
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]))
  items.forEach((item, index) => {
    const id = String(item.id)
    const json = JSON.stringify(item)
    let row = rows.get(id)
    rows.delete(id)
    if (row?.json !== json) {
      const fresh = render(item)
      fresh.dataset.id = id
      fresh.json = json
      if (row) row.replaceWith(fresh)
      else fresh.classList.add('new')
      row = fresh
    }
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null)
  })
  for (const row of rows.values()) row.remove()
}

const euros = new Intl.NumberFormat('en', {
  style: 'currency',
  currency: 'EUR',
  trailingZeroDisplay: 'stripIfInteger',
})

export const price = (cents) => euros.format(cents / 100)

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`
