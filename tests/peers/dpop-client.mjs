// A client that knows nothing of tmpcred: openid-client, which is certified.
//
//   node dpop-client.mjs PROVIDER BROKER AUDIENCE ROLE [RESOURCE]
//
// Gets an access token of PROVIDER (oidc-provider) that is bound to a key, exchanges it at
// BROKER with a proof by that key, and shows what it got to RESOURCE. Prints one JSON object.

import { calculateJwkThumbprint, decodeJwt, exportJWK } from 'jose';
import * as client from 'openid-client';

const [provider, broker, audience, role, resource] = process.argv.slice(2);
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const insecure = { execute: [client.allowInsecureRequests], algorithm: 'oauth2' };
const report = {};

const keys = await client.randomDPoPKeyPair('ES256', { extractable: true });
report.thumbprint = await calculateJwkThumbprint(await exportJWK(keys.publicKey));

const there = await client.discovery(new URL(provider), 'service', undefined, client.ClientSecretBasic('service-secret'), insecure);
const first = await client.clientCredentialsGrant(there, { resource: broker, scope: 'api:read' }, { DPoP: client.getDPoPHandle(there, keys) });
report.assertion = { token_type: first.token_type, jkt: decodeJwt(first.access_token).cnf?.jkt };

const here = await client.discovery(new URL(broker), 'service', undefined, client.None(), insecure);
report.algorithms = here.serverMetadata().dpop_signing_alg_values_supported;

async function exchange(config, pair) {
  const parameters = {
    subject_token: first.access_token,
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    audience,
    role,
  };
  return client.genericGrantRequest(config, EXCHANGE, parameters, pair && { DPoP: client.getDPoPHandle(config, pair) });
}

const others = await client.randomDPoPKeyPair('ES256');
for (const [name, pair] of [['unproved', undefined], ['by_another_key', others]]) {
  report[name] = await exchange(here, pair).then(() => 'granted', (error) => error.error ?? String(error));
}
const granted = await exchange(here, keys);
report.granted = { token_type: granted.token_type, jkt: decodeJwt(granted.access_token).cnf?.jkt };

if (resource) {
  const DPoP = client.getDPoPHandle(here, keys);
  const show = (url) => client.fetchProtectedResource(here, granted.access_token, new URL(url), 'GET', undefined, undefined, { DPoP });
  const response = await show(resource);
  report.resource = { status: response.status, body: await response.text() };
}
console.log(JSON.stringify(report));
