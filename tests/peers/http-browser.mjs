// A browser without a window: follows redirects, keeps cookies, fills in forms.
//
//   node http-browser.mjs '{"user": "alice"}' URL
//
// Logs in and says yes to everything until a page asks for nothing more. The
// first argument is one JSON object; see `defaults`. Where `log` names a file,
// a line {"opened": URL} is added at the start, and at the end either
// {"ended": URL, "status": N, "text": …} or {"failed": …}.

import { appendFileSync } from 'node:fs';

const defaults = {
  user: 'alice',
  password: 'password',
  code: null, // what to type where a page asks for a device's user code
  deny: false, // say no where somebody asks for consent
  only_open: false, // look at the first page and leave
  delay_ms: 0, // wait this long before the first page
  log: null, // a file
};
const options = { ...defaults, ...JSON.parse(process.argv[2]) };
const start = process.argv[3];

const MOST_PAGES = 20;
const NO = /\b(abort|cancel|deny|refuse|decline|no)\b/i;

const note = (event) => options.log && appendFileSync(options.log, `${JSON.stringify(event)}\n`);

// Cookies by host (RFC 6265: ports do not tell them apart), path and name.
class Jar {
  #cookies = new Map();

  keep(url, response) {
    for (const line of response.headers.getSetCookie()) {
      const [pair, ...attributes] = line.split(';').map((part) => part.trim());
      const at = pair.indexOf('=');
      const name = pair.slice(0, at);
      const attribute = (wanted) => attributes.map((a) => a.split('=')).find(([n]) => n.toLowerCase() === wanted)?.[1];
      const path = attribute('path') ?? '/';
      const expires = attribute('expires');
      const gone = attribute('max-age') === '0' || (expires && Date.parse(expires) < Date.now());
      const id = `${url.hostname} ${path} ${name}`;
      if (gone) this.#cookies.delete(id);
      else this.#cookies.set(id, { host: url.hostname, path, name, value: pair.slice(at + 1) });
    }
  }

  header(url) {
    const under = (path) => path === '/' || url.pathname === path || url.pathname.startsWith(`${path.replace(/\/$/, '')}/`);
    return [...this.#cookies.values()]
      .filter(({ host, path }) => host === url.hostname && under(path))
      .map(({ name, value }) => `${name}=${value}`)
      .join('; ');
  }
}

const jar = new Jar();

async function fetchOne(url, init = {}) {
  const cookie = jar.header(url);
  const headers = { accept: 'text/html', ...(cookie && { cookie }), ...init.headers };
  const response = await fetch(url, { ...init, headers, redirect: 'manual', signal: AbortSignal.timeout(60_000) });
  jar.keep(url, response);
  return response;
}

async function open(url, init) {
  for (let hops = 0; hops < MOST_PAGES; hops += 1) {
    const response = await fetchOne(url, init);
    if (![301, 302, 303, 307, 308].includes(response.status)) {
      return { url, status: response.status, html: await response.text() };
    }
    url = new URL(response.headers.get('location'), url);
    if (response.status < 307) init = undefined;
    await response.arrayBuffer();
  }
  throw new Error(`too many redirects, the last to ${url}`);
}

function decode(text) {
  const named = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
  return text.replace(/&(#x[0-9a-f]+|#\d+|\w+);/gi, (whole, what) => {
    if (/^#x/i.test(what)) return String.fromCodePoint(parseInt(what.slice(2), 16));
    if (what.startsWith('#')) return String.fromCodePoint(Number(what.slice(1)));
    return named[what] ?? whole;
  });
}

function attributes(tag) {
  const found = {};
  for (const [, name, double, single, bare] of tag.replace(/^<\w+/, '').matchAll(/([\w:-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/g)) {
    found[name.toLowerCase()] = decode(double ?? single ?? bare ?? '');
  }
  return found;
}

function text(html) {
  const visible = html.replace(/<(style|script|title)\b.*?<\/\1>/gis, ' ').replace(/<[^>]+>/g, ' ');
  return decode(visible).replace(/\s+/g, ' ').trim();
}

// The first form of a page, with its fields, and its buttons wherever they are.
function form(html) {
  const match = html.match(/(<form\b[^>]*>)(.*?)<\/form>/is);
  if (!match) return null;
  const { id, action = '', method = 'get' } = attributes(match[1]);
  const fields = [...match[2].matchAll(/<input\b[^>]*>/gi)].map(([tag]) => attributes(tag)).filter(({ name }) => name);
  const buttons = [...html.matchAll(/(<button\b[^>]*>)(.*?)<\/button>/gis)]
    .map((button) => ({ ...attributes(button[1]), text: text(button[2]), inside: match[2].includes(button[0]) }))
    .filter((button) => button.inside || (id && button.form === id))
    .filter(({ type }) => type !== 'button' && type !== 'reset');
  return { action, method: method.toLowerCase(), fields, buttons };
}

function fill({ fields, buttons }) {
  const values = new URLSearchParams();
  for (const { name, type = 'text', value = '', checked } of fields) {
    if (['login', 'username', 'user'].includes(name)) values.set(name, options.user);
    else if (type === 'password') values.set(name, options.password);
    else if (name === 'user_code' && !value && options.code) values.set(name, options.code);
    else if (type === 'submit' || type === 'button') continue;
    else if (type !== 'checkbox' || checked !== undefined) values.append(name, value);
  }
  const says = (button) => NO.test(`${button.name ?? ''} ${button.value ?? ''} ${button.text}`);
  const button = buttons.find((one) => says(one) === options.deny) ?? buttons.find((one) => !says(one));
  if (button?.name) values.set(button.name, button.value ?? '');
  return values;
}

// Glewlwyd's pages are a program; this is what it does for a person.
async function throughGlewlwyd({ url, status }) {
  const said = (name) => url.searchParams.get(name);
  const prompt = said('prompt') ?? '';
  if (prompt === 'deviceComplete') return { url, status, html: prompt, done: true };
  if (prompt === 'device' && options.code) {
    const back = new URL(said('callback_url'), url);
    back.searchParams.set('code', options.code);
    return open(back);
  }
  if (prompt.startsWith('device')) throw new Error(`Glewlwyd says ${prompt}`);
  if (options.deny) throw new Error('saying no at Glewlwyd needs Chromium');
  const json = async (method, path, body) => {
    const response = await fetchOne(new URL(path, url), { method, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    await response.arrayBuffer();
  };
  await json('POST', '/api/auth/', { username: options.user, password: options.password });
  if (said('client_id')) {
    await json('PUT', `/api/auth/grant/${said('client_id')}`, { scope: said('scope') });
  }
  const back = new URL(said('callback_url'), url);
  back.searchParams.set('g_continue', '');
  return open(back);
}

async function browse() {
  let page = await open(new URL(start));
  let codeTyped = false;
  for (let pages = 0; pages < MOST_PAGES; pages += 1) {
    if (options.only_open) return page;
    if (page.url.pathname.endsWith('/login.html') && !page.done) {
      page = await throughGlewlwyd(page);
      continue;
    }
    const asked = form(page.html);
    if (!asked || page.done) return page;
    const wantsCode = asked.fields.some(({ name, value }) => name === 'user_code' && !value);
    if (wantsCode && (codeTyped || !options.code)) {
      // Asked again: after a no the matter is closed, else the code was wrong.
      if (options.deny) return page;
      throw new Error(`a code is asked for: ${text(page.html).slice(0, 200)}`);
    }
    codeTyped ||= wantsCode;
    const wayOut = options.deny && [...page.html.matchAll(/(<a\b[^>]*>)(.*?)<\/a>/gis)].find(([, , label]) => NO.test(text(label)));
    if (wayOut) {
      page = await open(new URL(attributes(wayOut[1]).href, page.url));
      continue;
    }
    const to = new URL(asked.action, page.url);
    const values = fill(asked);
    if (asked.method === 'post') page = await open(to, { method: 'POST', body: values });
    else {
      to.search = values;
      page = await open(to);
    }
  }
  throw new Error(`still asked for something after ${MOST_PAGES} pages, at ${page.url}: ${text(page.html).slice(0, 200)}`);
}

note({ opened: start });
try {
  if (options.delay_ms) await new Promise((done) => setTimeout(done, options.delay_ms));
  const { url, status, html } = await browse();
  note({ ended: url.href, status, text: text(html).slice(0, 1000) });
} catch (error) {
  note({ failed: `${error.message}${error.cause ? `: ${error.cause.message || error.cause.code}` : ''}` });
  process.exitCode = 1;
}
