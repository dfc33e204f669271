// A certified OpenID provider (panva's oidc-provider) on loopback, for the tests.
//
//   node oidc-provider.mjs ['{"port": 0, …}']
//
// Prints `ready ISSUER` and lives until its standard input ends. Everybody can
// log in, with any password. The argument is one JSON object; see `defaults`.
// Each line on standard input is one JSON fault, see faults.mjs, and is answered
// by a line `ok`.
//
// Where `log` names a file, each request adds one JSON line to it before its
// answer leaves: method, path, status, and of the parameters only those that are
// no secret.

import { execFileSync } from 'node:child_process';
import { X509Certificate, createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

import { Faults } from './faults.mjs';

const defaults = {
  port: 0, // 0: any free one
  host: '127.0.0.1', // as the issuer has it; the server listens on 127.0.0.1 whatever it says
  tls: null, // { key: FILE, cert: FILE }, both PEM
  log: null, // a file
  redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost/callback'],
  certified_keys: false, // true: the key for RS256 is published with a certificate (x5c), which some want
  resource_tokens: true, // false: no RFC 8707, access tokens are opaque
  token_algorithm: 'RS256', // what access tokens that are JWTs are signed by; or ES256
  audience_parameter: false, // true: tokens are bound by `audience`, as with providers that know no RFC 8707
  offline_access: false, // true: a refresh token needs the scope `offline_access`
  token_auth_time: false, // true: access tokens that are JWTs say when the login was (auth_time)
  token_acr: false, // true: they say as `acr` the first of the `acr_values` that were asked for last
  device_interval: null, // seconds between polls, told to clients
  ttl: {}, // seconds, by oidc-provider's names: AccessToken, IdToken, RefreshToken, DeviceCode…
  clients: [], // more clients, as oidc-provider has them
  users: {}, // claims by login, such as { "alice": { "groups": ["ops"] } }
};
const options = { ...defaults, ...JSON.parse(process.argv[2] ?? '{}') };

const ttl = {
  AccessToken: 3600,
  ClientCredentials: 3600,
  IdToken: 3600,
  RefreshToken: 86400,
  DeviceCode: 600,
  Session: 86400,
  Grant: 86400,
  Interaction: 600,
  ...options.ttl,
};

const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
const person = { token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: options.redirect_uris, response_types: ['code'] };
const machine = { redirect_uris: [], response_types: [] };
const clients = [
  { ...person, client_id: 'cli', grant_types: ['authorization_code', 'refresh_token', DEVICE_CODE] },
  { ...person, client_id: 'cli-no-refresh', grant_types: ['authorization_code', DEVICE_CODE] },
  { ...machine, client_id: 'service', client_secret: 'service-secret', grant_types: ['client_credentials'] },
];

function claims(login) {
  return { sub: login, name: `User ${login}`, email: `${login}@example.com`, email_verified: true, groups: ['dev'], ...options.users[login] };
}

// By way of PEM: now and then Node.js 20 waits for itself for ever where a key that it
// has just generated is exported.
function key(type, how, rest) {
  const privateKeyEncoding = { type: 'pkcs8', format: 'pem' };
  const publicKeyEncoding = { type: 'spki', format: 'pem' };
  const { privateKey } = generateKeyPairSync(type, { ...how, privateKeyEncoding, publicKeyEncoding });
  return published(createPrivateKey(privateKey), rest);
}

function published(privateKey, rest) {
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', ...rest };
}

// A key with a certificate that it has given itself.
function certifiedKey(rest) {
  const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=keys', '-days', '2', '-keyout', '-', '-out', '-'];
  const pem = execFileSync('openssl', request, { stdio: ['ignore', 'pipe', 'ignore'] });
  const x5c = [new X509Certificate(pem).raw.toString('base64')];
  return published(createPrivateKey(pem), { ...rest, x5c });
}

// What was asked for with `audience`: now, or by the login that this goes on with.
function audience(ctx) {
  return ctx.oidc.params?.audience ?? ctx.oidc.body?.audience;
}

// The kind of login that was asked for last.
let kind;

// When the login was that this token comes of.
function loginAt(ctx) {
  const { AuthorizationCode, DeviceCode, RefreshToken } = ctx.oidc.entities;
  return (AuthorizationCode ?? DeviceCode ?? RefreshToken)?.authTime;
}

function configuration() {
  const rsa = { kid: 'rsa-1', alg: 'RS256' };
  const names = new Set(['name', 'groups', ...Object.values(options.users).flatMap(Object.keys)]);
  return {
    clients: [...clients, ...options.clients],
    jwks: {
      keys: [
        options.certified_keys ? certifiedKey(rsa) : key('rsa', { modulusLength: 2048 }, rsa),
        key('ec', { namedCurve: 'P-256' }, { kid: 'ec-1', alg: 'ES256' }),
      ],
    },
    cookies: { keys: [crypto.randomUUID()] },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'api:read', 'api:write'],
    claims: { openid: ['sub'], profile: [...names], email: ['email', 'email_verified'] },
    conformIdTokenClaims: false,
    findAccount: (_ctx, login) => ({ accountId: login, claims: () => claims(login) }),
    extraTokenClaims: (ctx, token) =>
      token.accountId
        ? {
            groups: claims(token.accountId).groups,
            ...(options.token_auth_time && { auth_time: loginAt(ctx) }),
            ...(options.token_acr && { acr: kind }),
          }
        : undefined,
    extraParams: options.audience_parameter ? ['audience'] : [],
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: (_ctx, client, code) =>
      client.grantTypeAllowed('refresh_token') && (!options.offline_access || code.scopes.has('offline_access')),
    ttl,
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
      resourceIndicators: {
        enabled: options.resource_tokens,
        defaultResource: (ctx) => (options.audience_parameter ? audience(ctx) : undefined),
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'api:read api:write',
          audience: resource,
          accessTokenTTL: ttl.AccessToken,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: options.token_algorithm } },
        }),
      },
    },
  };
}

// What the log may say of a request's parameters.
const LOGGED = ['grant_type', 'client_id', 'resource', 'audience', 'scope', 'prompt', 'max_age', 'acr_values', 'token_type_hint'];

function record(req, status, fault) {
  if (!options.log) return;
  const { oidc } = req;
  const entry = { method: req.method, path: req.url.split('?')[0], status, fault };
  for (const name of LOGGED) {
    // A parameter that may come more than once is a list then.
    if (oidc?.params?.[name] !== undefined) entry[name] = [oidc.params[name]].flat().join(' ');
  }
  if (oidc?.error) entry.error = oidc.error;
  appendFileSync(options.log, `${JSON.stringify(entry)}\n`);
}

const faults = new Faults(record);
if (options.device_interval !== null) {
  faults.add({ path: '/device/auth', kind: 'patch', set: { interval: options.device_interval } });
}

let provide;
const handle = (req, res) => faults.around(req, res, () => provide(req, res));
const server = options.tls
  ? https.createServer({ key: readFileSync(options.tls.key), cert: readFileSync(options.tls.cert) }, handle)
  : http.createServer(handle);

server.listen(options.port, '127.0.0.1', () => {
  const issuer = `http${options.tls ? 's' : ''}://${options.host}:${server.address().port}`;
  const provider = new Provider(issuer, configuration());
  provider.use(async (ctx, next) => {
    ctx.req.oidc = {
      get params() {
        const { params, body } = ctx.oidc ?? {};
        // The resource would be the one that the audience was taken for.
        return options.audience_parameter ? { ...params, resource: undefined, ...ctx.query, ...body } : params;
      },
    };
    if (ctx.path === '/auth' && ctx.query.acr_values) kind = ctx.query.acr_values.split(' ')[0];
    await next();
    ctx.req.oidc.error = ctx.body?.error;
  });
  provider.on('server_error', (_ctx, error) => console.error('server_error', error));
  provider.on('grant.error', (_ctx, error) => console.error('grant.error', error.error, error.error_description, error.error_detail ?? ''));
  provider.on('authorization.error', (_ctx, error) => console.error('authorization.error', error.error, error.error_description));
  provide = provider.callback();
  console.log('ready', issuer);
});

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const fault = JSON.parse(line);
    if (fault.clear) faults.clear();
    else faults.add(fault);
    console.log('ok');
  })
  .on('close', () => process.exit());
