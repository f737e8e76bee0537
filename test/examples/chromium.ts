import chromium from '@sparticuz/chromium'
import { type Browser, type BrowserContext, chromium as playwright } from 'playwright-core'

/** A real Chromium, headless; `CHROMIUM_PATH` names another one than the package's. */
export async function launchChromium(): Promise<Browser> {
  return playwright.launch(await options())
}

/** The same with a profile, which the next one that is launched with it finds as it was. */
export async function launchProfile(directory: string): Promise<BrowserContext> {
  return playwright.launchPersistentContext(directory, await options())
}

async function options() {
  return {
    executablePath: process.env.CHROMIUM_PATH ?? (await chromium.executablePath()),
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  }
}
