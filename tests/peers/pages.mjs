// Somebody who looks at pages and does things there, with a real browser: Chromium without a
// window.
//
//   node pages.mjs '{"state": FILE, "steps": [["goto", URL], ["click", "button", "Approve"], …]}'
//
// Prints one JSON array: what each step that asks for something got. Cookies are kept in the
// file `state`, from one run to the next.

import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';

import { launch } from './browser.mjs';

const options = { state: null, user: 'alice', ...JSON.parse(process.argv[2]) };
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const STEP_MS = 20_000;
const MOST_TABS = 80;

const browser = await launch();
const context = await browser.newContext({
  bypassCSP: false,
  ignoreHTTPSErrors: true,
  storageState: options.state && existsSync(options.state) ? options.state : undefined,
});
const said = [];
let status = null;

async function open() {
  const tab = await context.newPage();
  tab.setDefaultTimeout(STEP_MS);
  tab.on('console', (message) => said.push(message.text()));
  tab.on('dialog', (dialog) => {
    said.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  tab.on('response', (response) => {
    if (response.request().isNavigationRequest() && response.frame() === tab.mainFrame()) status = response.status();
  });
  return tab;
}

const tabs = new Map([['first', await open()]]);
let page = tabs.get('first');

// A site of somebody else, at another port: to cookies that is the same site.
async function elsewhere(body) {
  const server = http.createServer((_, answer) => answer.setHeader('content-type', 'text/html').end(`<!doctype html><title>elsewhere</title>${body}`));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  return server;
}

// What has the focus: what a screen reader would call it.
const focused = () => page.evaluate(() => {
  const one = document.activeElement;
  const label = one?.labels?.[0]?.innerText ?? one?.innerText ?? '';
  return label.replace(/\s+/g, ' ').trim();
});

const steps = {
  // Goes on in another tab, which is opened where there is none with this name.
  tab: async (name) => {
    if (!tabs.has(name)) tabs.set(name, await open());
    page = tabs.get(name);
    await page.bringToFront();
  },
  goto: async (url) => void (await page.goto(url)),
  // Logs in at the provider, and goes on until that is done.
  sign_in: async (user) => {
    for (let pages = 0; pages < 8; pages += 1) {
      await page.waitForLoadState();
      const login = page.locator('input[name=login]');
      if (await login.count()) {
        await login.fill(user);
        await page.locator('input[name=password]').fill('password');
        await Promise.all([page.waitForNavigation(), page.locator('button[type=submit]').click()]);
      } else if (await page.locator('form[action*="/interaction/"] button[type=submit]').count()) {
        await Promise.all([page.waitForNavigation(), page.locator('button[type=submit]').first().click()]);
      } else return;
    }
  },
  click: async (role, name) => {
    const one = page.getByRole(role, { name, exact: true }).first();
    await one.click();
    await page.waitForLoadState();
  },
  fill: async (label, text) => void (await page.getByLabel(label, { exact: true }).fill(text)),
  check: async (label) => void (await page.getByLabel(label, { exact: true }).check()),
  press: async (key) => {
    await page.keyboard.press(key);
    await page.waitForLoadState();
  },
  type: async (text) => void (await page.keyboard.type(text)),
  // By the keyboard alone, until this has the focus; how many times that took.
  tab_to: async (name) => {
    for (let tabs = 1; tabs <= MOST_TABS; tabs += 1) {
      await page.keyboard.press('Tab');
      if ((await focused()) === name) {
        const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
        if (ring === 'none') throw new Error(`it cannot be seen that ${name} has the focus`);
        return tabs;
      }
    }
    throw new Error(`the keyboard does not lead to ${name}`);
  },
  enter: async () => void (await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')])),
  wait_for: async (text) => void (await page.getByText(text).first().waitFor()),
  scheme: async (colorScheme) => void (await page.emulateMedia({ colorScheme })),
  size: async (width, height) => void (await page.setViewportSize({ width, height })),
  shot: async (path) => void (await page.screenshot({ path, fullPage: true })),
  text: () => page.evaluate(() => document.body.innerText),
  html: () => page.content(),
  url: () => page.url(),
  title: () => page.title(),
  status: () => status,
  // How far the page reaches beyond its window, to the side.
  overflow: () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  said: () => said,
  cookies: async () => (await context.cookies()).map(({ name, httpOnly, sameSite, secure, path }) => ({ name, httpOnly, sameSite, secure, path })),
  // What is wrong for people who see, hear or move otherwise. The page's own policy keeps
  // scripts out, so it is looked at from a world beside the page's.
  axe: async () => {
    const session = await context.newCDPSession(page);
    const { frameTree } = await session.send('Page.getFrameTree');
    const { executionContextId: contextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
    await session.send('Runtime.evaluate', { expression: axe, contextId });
    const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
      expression: `axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => JSON.stringify({
        passes: passes.length,
        violations: violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => [id, help, String(target), failureSummary].join(' | '))),
      }))`,
      contextId,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    const { passes, violations } = JSON.parse(result.value);
    if (passes < 10) throw new Error(`only ${passes} rules were looked at`);
    return violations;
  },
  // Sends a form from a page of somebody else's.
  attack: async (action, fields) => {
    const inputs = Object.entries(fields).map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`);
    const server = await elsewhere(`<form method="post" action="${action}">${inputs.join('')}<button>Win</button></form>`);
    await Promise.all([page.waitForNavigation(), page.getByRole('button', { name: 'Win' }).click()]);
    server.close();
    return status;
  },
  // Follows a link on a page of somebody else's.
  led: async (url) => {
    const server = await elsewhere(`<a href="${url}">Look</a>`);
    await Promise.all([page.waitForNavigation(), page.getByRole('link', { name: 'Look' }).click()]);
    server.close();
    return status;
  },
  // Shows a page within one of somebody else's: what is seen of it.
  framed: async (url) => {
    const server = await elsewhere(`<iframe src="${url}"></iframe>`);
    await page.waitForLoadState('networkidle');
    const frame = page.frames().find((one) => one !== page.mainFrame());
    const text = await frame.evaluate(() => document.body?.innerText ?? '').catch(() => '');
    server.close();
    return { url: frame.url(), text };
  },
};

const got = [];
let at = null;
try {
  for (const [name, ...rest] of options.steps) {
    at = [name, ...rest];
    const value = await steps[name](...rest);
    if (value !== undefined) got.push(value);
  }
  if (options.state) await context.storageState({ path: options.state });
  console.log(JSON.stringify(got));
} catch (error) {
  const text = await page.evaluate(() => document.body?.innerText ?? '').catch(() => '');
  console.error(`at ${JSON.stringify(at)}, on ${page.url()}: ${error.message}\n${text.slice(0, 3000)}\n${said.join('\n')}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
