/** How long the pauses are that are there to be seen: 1, or less for whoever is in a hurry. */
export const PACE = Number(process.env.PACE ?? 1)
