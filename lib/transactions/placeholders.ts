/** What stands between the parameters of a statement with $1, $2, … in the order of their numbers. */
export function aroundPlaceholders(sql: string): string[] {
  return sql.split(/\$\d+/)
}
