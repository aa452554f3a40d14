// What all client programs share: counted checks, waiting, and asking the driver (compat/clients.py) for a restart.
//
//   node PROGRAM NEAR-PORT FAR-PORT PROTOCOL
//
// Near and far are the same server at one site, and one server of each site at two. What is written and published at the near one
// is read and received at the far one. The last line is `N passed, N failed`.
import { createInterface } from 'node:readline';

export const [near, far, protocol] = process.argv.slice(2).map(Number);
export const password = process.env.COMPAT_PASSWORD;
export const database = 5;
export const twoSites = near !== far;

const SECONDS = 20; // the longest that anything may take
let passed = 0;
let failed = 0;

/** Counts one check; prints it when it is not good. */
export function check(what, good, detail = '') {
  if (good) passed += 1;
  else {
    failed += 1;
    console.log(`FAIL ${what}${detail === '' ? '' : `: ${typeof detail === 'string' ? detail : JSON.stringify(detail)}`}`);
  }
  return good;
}

export const equal = (what, actual, expected) =>
  check(what, JSON.stringify(actual) === JSON.stringify(expected), `${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asks until the answer is true, and gives it; undefined at the deadline. For what has no event to await. */
export async function eventually(ask, pauseMs = 10) {
  const deadline = Date.now() + SECONDS * 1000;
  for (;;) {
    let answer;
    try {
      answer = await ask();
    } catch {
      answer = undefined; // as a connection that is down: asked again
    }
    if (answer) return answer;
    if (Date.now() > deadline) return undefined;
    await pause(pauseMs);
  }
}

export const rejects = (promise) => promise.then(() => undefined, (error) => String(error?.message ?? error));

/** What came in, awaited by a condition. */
export class Inbox {
  items = [];
  waiting = [];
  push(item) {
    this.items.push(item);
    this.waiting.splice(0).forEach((wake) => wake());
  }
  /** The first item that fits, now or later; undefined at the deadline. */
  async find(fits) {
    const deadline = Date.now() + SECONDS * 1000;
    for (;;) {
      const found = this.items.find(fits);
      if (found !== undefined || Date.now() > deadline) return found;
      await Promise.race([new Promise((wake) => this.waiting.push(wake)), pause(deadline - Date.now() + 1)]);
    }
  }
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the driver kill the far server, which cannot say goodbye, and start it again on its port and its data. */
export async function killAndRestart() {
  console.log('!restart');
  await answers.next();
}

/** Runs the program, says the counts, and ends the process. */
export async function main(run) {
  try {
    await run();
  } catch (error) {
    check('the program runs to its end', false, error?.stack ?? String(error));
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
