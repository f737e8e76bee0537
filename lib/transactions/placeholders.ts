/** Splits a statement at its parameters, for ORMs that do not use $1, $2, … */

/** The parts of a statement between its parameters, which must be $1, $2, … in this order. */
export function splitAtPlaceholders(sql: string): string[] {
  return sql.split(/\$\d+/)
}
