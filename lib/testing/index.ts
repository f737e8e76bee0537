/** The entry point of pawl/testing: crash tests for apps that use Pawl. */

export type { FastifyLike, TestableApp } from './app-server.ts'
export type { Difference } from './compare-values.ts'
export { type CrashTestReport, crashTest } from './crash-test.ts'
export type { CrashTestAnswer } from './crash-test-answer.ts'
export { CrashTestError, type CrashTestFailure } from './crash-test-error.ts'
export type { CrashTestOptions } from './crash-test-options.ts'
export type { CrashTestRequest } from './crash-test-request.ts'
export type { TestableDatabase } from './killable-database.ts'
export type { MakeApp, ProcessResources, RunningApp } from './simulated-process.ts'
