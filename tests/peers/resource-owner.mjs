// A resource owner that knows nothing of tmpcred: oauth4webapi, which takes JWT access
// tokens as RFC 9068 and RFC 9449 have them.
//
//   node resource-owner.mjs PROVIDER BROKER AUDIENCE
//
// Gets tokens for AUDIENCE at BROKER with openid-client, which finds it by RFC 8414, plainly
// and bound to a key, and shows them to itself. Prints one JSON object.

import { decodeJwt } from 'jose';
import * as client from 'openid-client';
import * as oauth from 'oauth4webapi';

const [provider, broker, audience] = process.argv.slice(2);
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const insecure = { execute: [client.allowInsecureRequests], algorithm: 'oauth2' };
const report = {};

const there = await client.discovery(new URL(provider), 'service', undefined, client.ClientSecretBasic('service-secret'), insecure);
const first = await client.clientCredentialsGrant(there, { resource: broker, scope: 'api:read' });
const here = await client.discovery(new URL(broker), 'service', undefined, client.None(), insecure);
report.issuer = here.serverMetadata().issuer;

const outcome = (attempt) => attempt.then((claims) => claims.role ?? 'granted', (error) => error.error ?? error.code ?? String(error));
const exchange = (role, wanted, options) =>
  client.genericGrantRequest(
    here,
    EXCHANGE,
    { subject_token: first.access_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', role, ...wanted },
    options,
  );

const response = await oauth.discoveryRequest(new URL(broker), { algorithm: 'oauth2', [oauth.allowInsecureRequests]: true });
const as = await oauth.processDiscoveryResponse(new URL(broker), response);
const jwks = {};
const url = 'https://api.example.com/things';
const take = (headers, { wanted = audience, method = 'GET', ...more } = {}) =>
  oauth.validateJwtAccessToken(as, new Request(url, { method, headers }), wanted, {
    [oauth.allowInsecureRequests]: true,
    [oauth.jwksCache]: jwks,
    ...more,
  });

const plain = (await exchange('deploy', { resource: audience })).access_token;
const bearer = (token) => ({ authorization: `Bearer ${token}` });
report.plain = await outcome(take(bearer(plain)));
report.for_another = await outcome(take(bearer(plain), { wanted: 'https://other.example.com' }));
report.of_another = await outcome(take(bearer(first.access_token)));
report.unbound = await outcome(take(bearer(plain), { requireDPoP: true }));

const pair = await client.randomDPoPKeyPair('ES256', { extractable: true });
const DPoP = client.getDPoPHandle(here, pair);
const bound = (await exchange('bound', { resource: audience }, { DPoP })).access_token;
report.jkt = decodeJwt(bound).cnf.jkt === (await DPoP.calculateThumbprint());
report.stolen = await outcome(take(bearer(bound)));
// What openid-client would send to the resource.
let sent;
here[client.customFetch] = async (_, options) => {
  sent = options.headers;
  return new Response();
};
await client.fetchProtectedResource(here, bound, new URL(url), 'GET', undefined, undefined, { DPoP });
report.bound = await outcome(take(sent, { requireDPoP: true }));
report.other_method = await outcome(take(sent, { method: 'DELETE' }));
console.log(JSON.stringify(report));
