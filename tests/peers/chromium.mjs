// A real browser: Chromium without a window, driven as a person would.
//
//   node chromium.mjs '{"user": "alice", "screenshot": FILE}' URL
//
// Takes the options and writes the log of http-browser.mjs. Where `screenshot`
// names a file, it gets a picture (PNG) of the last page.

import { appendFileSync } from 'node:fs';

import { launch } from './browser.mjs';

const defaults = {
  user: 'alice',
  password: 'password',
  code: null,
  deny: false,
  only_open: false,
  delay_ms: 0,
  log: null,
  screenshot: null,
  trust_any_certificate: false, // Chromium has its own list of authorities
};
const options = { ...defaults, ...JSON.parse(process.argv[2]) };
const start = process.argv[3];

const MOST_STEPS = 20;
const STEP_MS = 10_000;
const YES = /^\W*(allow|approve|authori[sz]e|accept|confirm|continue|grant|log ?in|ok|sign[- ]?in|submit|yes)\b/i;
const NO = /^\W*(abort|cancel|decline|deny|refuse|no)\b/i;

const note = (event) => options.log && appendFileSync(options.log, `${JSON.stringify(event)}\n`);

// What a page asks for: runs in the page.
function ask([yes, no]) {
  const shown = (element) => element.checkVisibility() && !element.disabled;
  // A page that has only just begun has no body.
  const visible = document.body?.innerText ?? 'loading';
  const label = (element) => (element.innerText || element.value || element.title || '').trim();
  const inputs = [...document.querySelectorAll('input')].filter(shown);
  const buttons = [...document.querySelectorAll('button, input[type=submit], a')].filter(shown);
  const mark = (element, name) => element?.setAttribute('data-driver', name);
  for (const old of document.querySelectorAll('[data-driver]')) old.removeAttribute('data-driver');
  const login = inputs.find(({ name }) => ['login', 'username', 'user'].includes(name));
  const password = inputs.find(({ type }) => type === 'password');
  const texts = inputs.filter(({ type }) => type === 'text');
  const code = inputs.find(({ name }) => name === 'user_code') ?? (texts.length === 1 && !login ? texts[0] : undefined);
  const boxes = inputs.filter(({ type, checked }) => type === 'checkbox' && !checked);
  const yesButton = buttons.find((one) => one.tagName !== 'A' && new RegExp(yes, 'i').test(label(one)));
  const noButton = buttons.find((one) => new RegExp(no, 'i').test(label(one)));
  mark(login, 'login');
  mark(password, 'password');
  mark(code, 'code');
  boxes.forEach((box, at) => mark(box, `box-${at}`));
  mark(yesButton, 'yes');
  mark(noButton, 'no');
  return {
    login: Boolean(login),
    password: Boolean(password),
    code: Boolean(code) && !code.value,
    boxes: boxes.length,
    yes: Boolean(yesButton),
    no: Boolean(noButton),
    loading: document.readyState !== 'complete' || /^loading/i.test(visible.trim()),
    text: visible.replace(/\s+/g, ' ').trim(),
    at: performance.timeOrigin, // differs from page to page
  };
}

async function look(page) {
  for (;;) {
    try {
      return { url: page.url(), ...(await page.evaluate(ask, [YES.source, NO.source])) };
    } catch (error) {
      // The page went away while it was looked at.
      if (!/context was destroyed|navigat|detached/i.test(error.message)) throw error;
    }
  }
}

// Waits until the page asks for something else than before, or for nothing at all.
async function settled(page, before) {
  const end = Date.now() + STEP_MS;
  let quiet = 0;
  for (;;) {
    const now = await look(page);
    const changed = JSON.stringify(now) !== JSON.stringify(before);
    const asks = now.password || now.login || now.code || now.yes || now.boxes;
    if (changed && !now.loading) {
      if (asks) return now;
      quiet += 1;
      if (quiet === 4) return now;
    }
    if (Date.now() > end) throw new Error(`nothing happened at ${now.url}: ${now.text.slice(0, 200)}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

async function browse(page) {
  await page.goto(start);
  let now = await settled(page, null);
  let codeTyped = false;
  for (let steps = 0; steps < MOST_STEPS; steps += 1) {
    const marked = (name) => page.locator(`[data-driver=${name}]`).first();
    if (options.only_open) return now;
    if (options.deny && now.no && !now.password) {
      await marked('no').click();
      // Whatever is asked for after that is another matter.
      return settled(page, now);
    } else {
      if (now.login) await marked('login').fill(options.user);
      if (now.password) await marked('password').fill(options.password);
      if (now.code && (codeTyped || !options.code)) throw new Error(`a code is asked for: ${now.text.slice(0, 200)}`);
      if (now.code) await marked('code').fill(options.code);
      codeTyped ||= now.code;
      for (let at = 0; at < now.boxes; at += 1) await marked(`box-${at}`).check();
      // A button may have waited for that.
      now = await look(page);
      if (!now.yes) return now;
      await marked('yes').click();
    }
    now = await settled(page, now);
  }
  throw new Error(`still asked for something after ${MOST_STEPS} steps, at ${now.url}: ${now.text.slice(0, 200)}`);
}

note({ opened: start });
let browser;
try {
  if (options.delay_ms) await new Promise((done) => setTimeout(done, options.delay_ms));
  browser = await launch();
  const context = await browser.newContext({ ignoreHTTPSErrors: options.trust_any_certificate });
  const page = await context.newPage();
  let status = null;
  page.on('response', (response) => {
    if (response.request().isNavigationRequest()) status = response.status();
  });
  page.setDefaultTimeout(STEP_MS);
  try {
    const { url, text } = await browse(page);
    note({ ended: url, status, text: text.slice(0, 1000) });
  } finally {
    if (options.screenshot) await page.screenshot({ path: options.screenshot });
  }
} catch (error) {
  note({ failed: error.message });
  process.exitCode = 1;
} finally {
  await browser?.close();
}
