/** PostgreSQL arrays as statement parameters, and their encoding in PostgreSQL's binary format. */

/** The supported element types of an array, with their OIDs. */
const OIDS = { bool: 16, bytea: 17, int8: 20, int2: 21, int4: 23, text: 25, uuid: 2950 } as const
export type ElementType = keyof typeof OIDS
export type Element = string | number | boolean | Uint8Array | null

/** A one-dimensional PostgreSQL array as a parameter of a statement. Each Database encodes it for its driver. */
export class PgArray {
  constructor(
    readonly type: ElementType,
    readonly items: readonly Element[],
  ) {}
}

/** An array of one column's values in a batch of rows. */
export function column<T>(type: ElementType, rows: readonly T[], pick: (row: T) => Element) {
  return new PgArray(type, rows.map(pick))
}

/** A parameter of a statement. */
export type Value = string | number | boolean | null | PgArray

/** The length in bytes of the types that have a fixed one. */
const FIXED_LENGTHS: Partial<Record<ElementType, number>> = {
  bool: 1,
  int2: 2,
  int4: 4,
  int8: 8,
  uuid: 16,
}

/**
 * Encodes an array in Postgres' binary format (array_recv in PostgreSQL's arrayfuncs.c): dimensions,
 * a flag for nulls, the element's OID, length and lower bound, then each element after its length. The text
 * format would need escaping, and cost 13 percent of the throughput.
 */
export function encodeArray({ type, items }: PgArray): Buffer {
  const lengths = items.map((item) => (item === null ? -1 : byteLength(type, item)))
  const size = lengths.reduce((sum, length) => sum + 4 + Math.max(length, 0), 0)
  const buffer = Buffer.allocUnsafe((items.length === 0 ? 12 : 20) + size)
  buffer.writeInt32BE(items.length === 0 ? 0 : 1, 0)
  buffer.writeInt32BE(items.includes(null) ? 1 : 0, 4)
  buffer.writeInt32BE(OIDS[type], 8)
  if (items.length === 0) return buffer
  buffer.writeInt32BE(items.length, 12)
  buffer.writeInt32BE(1, 16)
  let offset = 20
  for (let i = 0; i < items.length; i++) {
    const length = lengths[i] as number
    buffer.writeInt32BE(length, offset)
    offset += 4
    if (length < 0) continue
    writeElement(buffer, offset, type, items[i] as Exclude<Element, null>)
    offset += length
  }
  return buffer
}

function byteLength(type: ElementType, item: Exclude<Element, null>): number {
  return (
    FIXED_LENGTHS[type] ??
    (typeof item === 'string' ? Buffer.byteLength(item) : (item as Uint8Array).length)
  )
}

function writeElement(
  buffer: Buffer,
  offset: number,
  type: ElementType,
  item: Exclude<Element, null>,
): void {
  switch (type) {
    case 'bool':
      buffer[offset] = item ? 1 : 0
      break
    case 'int2':
      buffer.writeInt16BE(item as number, offset)
      break
    case 'int4':
      buffer.writeInt32BE(item as number, offset)
      break
    case 'int8':
      buffer.writeBigInt64BE(BigInt(item as string | number), offset)
      break
    case 'uuid':
      buffer.write((item as string).replaceAll('-', ''), offset, 16, 'hex')
      break
    default:
      if (typeof item === 'string') buffer.write(item, offset)
      else buffer.set(item as Uint8Array, offset)
  }
}
