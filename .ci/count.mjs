// Prints how many tests of a vitest JSON report passed, failed and were skipped; each skipped one on stderr.
import { readFileSync } from 'node:fs'

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const isFailed = ({ status }) => status === 'failed'
// A file that does not load has no failed tests, and is a failure.
const broken = report.testResults.filter(
  (file) => isFailed(file) && !file.assertionResults.some(isFailed),
)
const tests = report.testResults.flatMap((file) => file.assertionResults)
const skipped = tests.filter(({ status }) => status !== 'passed' && status !== 'failed')
for (const { fullName } of skipped) console.error(`skipped: ${fullName}`)
console.log(report.numPassedTests, report.numFailedTests + broken.length, skipped.length)
