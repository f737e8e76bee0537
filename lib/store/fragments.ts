/** The parts that statements are made of. @param schema the schema's name, quoted as an identifier */
export function fragments(schema: string) {
  const now = `${schema}.now()`
  return {
    now,
    /** One reading of the clock for a whole statement. */
    clock: `clock as materialized (select ${now} as now)`,
    /**
     * Names one life of an execution: a row that was deleted, or reset after it expired, has another
     * created_at, so a process of its former life cannot write into the new one.
     */
    born: (row: string) => micros(`${row}.created_at`),
    micros,
    ms: (column: string) => `${column} * interval '1 millisecond'`,
  }
}

/** A point in time in microseconds since 1970: exact, unlike a JavaScript Date. */
function micros(time: string): string {
  return `(extract(epoch from ${time}) * 1000000)::int8`
}
