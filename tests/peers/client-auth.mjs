// A client that authenticates by what it signs (private_key_jwt), and knows nothing of
// tmpcred: openid-client, which is certified.
//
//   node client-auth.mjs generate DIRECTORY
//   node client-auth.mjs PROVIDER BROKER AUDIENCE ROLE KEY
//
// The first writes a key into DIRECTORY: `private.json`, and `jwks.json` with the public
// half. The second gets an access token of PROVIDER (oidc-provider), exchanges it at BROKER
// as the client `robot` whose private key is in the file KEY, and asks about and revokes
// what it got. Prints one JSON object.

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { calculateJwkThumbprint, decodeJwt, exportJWK, generateKeyPair, importJWK } from 'jose';
import * as client from 'openid-client';

const args = process.argv.slice(2);
if (args[0] === 'generate') {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = await calculateJwkThumbprint(await exportJWK(publicKey));
  const more = { kid, alg: 'ES256', use: 'sig' };
  const write = (name, value) => writeFileSync(path.join(args[1], name), JSON.stringify(value), { mode: 0o600 });
  write('private.json', { ...(await exportJWK(privateKey)), ...more });
  write('jwks.json', { keys: [{ ...(await exportJWK(publicKey)), ...more }] });
  process.exit(0);
}

const [provider, broker, audience, role, file] = args;
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const insecure = { execute: [client.allowInsecureRequests], algorithm: 'oauth2' };
const report = {};

const there = await client.discovery(new URL(provider), 'service', undefined, client.ClientSecretBasic('service-secret'), insecure);
const first = await client.clientCredentialsGrant(there, { resource: broker, scope: 'api:read' });

const jwk = JSON.parse(readFileSync(file, 'utf8'));
const key = { key: await importJWK(jwk, 'ES256'), kid: jwk.kid };
const as = (how) => client.discovery(new URL(broker), 'robot', undefined, how, insecure);
const here = await as(client.PrivateKeyJwt(key));
report.methods = here.serverMetadata().token_endpoint_auth_methods_supported;
report.algorithms = here.serverMetadata().token_endpoint_auth_signing_alg_values_supported;

const exchange = (config) =>
  client.genericGrantRequest(config, EXCHANGE, {
    subject_token: first.access_token,
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    audience,
    role,
  });

const granted = await exchange(here);
report.client_id = decodeJwt(granted.access_token).client_id;
const told = async () => (await client.tokenIntrospection(here, granted.access_token)).active;
report.before = await told();
await client.tokenRevocation(here, granted.access_token);
report.after = await told();

const outcome = (attempt) => attempt.then(() => 'granted', (error) => `${error.status} ${error.error}`);
report.unproved = await outcome(as(client.None()).then(exchange));
// What older peers say of whom it is for.
const old = client.PrivateKeyJwt(key, { [client.modifyAssertion]: (_, payload) => { payload.aud = [broker, `${broker}/token`]; } });
report.for_several = await outcome(as(old).then(exchange));
let used;
const once = client.PrivateKeyJwt(key, { [client.modifyAssertion]: (_, payload) => { payload.jti = used ??= payload.jti; } });
const repeating = await as(once);
report.once = await outcome(exchange(repeating));
report.twice = await outcome(exchange(repeating));
console.log(JSON.stringify(report));
