// A resource owner that asks about each token (RFC 7662) and knows nothing of tmpcred:
// openid-client, which is certified, as a client that authenticates by what it signs;
// oauth4webapi and jose check the proofs.
//
//   node introspect.mjs PROVIDER BROKER AUDIENCE KEY
//
// Gets an access token of PROVIDER (oidc-provider), exchanges it at BROKER for a token of
// each role, and asks about all of them as the client `robot`, whose private key is in the
// file KEY, and as the client `stranger`, whom no policy knows. Prints one JSON object.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { EmbeddedJWK, calculateJwkThumbprint, importJWK, jwtVerify } from 'jose';
import * as client from 'openid-client';
import * as oauth from 'oauth4webapi';

const [provider, broker, audience, file] = process.argv.slice(2);
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const insecure = { execute: [client.allowInsecureRequests], algorithm: 'oauth2' };
const report = {};

const there = await client.discovery(new URL(provider), 'service', undefined, client.ClientSecretBasic('service-secret'), insecure);
const first = await client.clientCredentialsGrant(there, { resource: broker, scope: 'api:read' });
const jwk = JSON.parse(readFileSync(file, 'utf8'));
const key = { key: await importJWK(jwk, 'ES256'), kid: jwk.kid };
const as = (id) => client.discovery(new URL(broker), id, undefined, client.PrivateKeyJwt(key), insecure);
const [robot, stranger] = [await as('robot'), await as('stranger')];
const metadata = robot.serverMetadata();
report.methods = metadata.introspection_endpoint_auth_methods_supported;

const exchange = (role, options) =>
  client.genericGrantRequest(
    robot,
    EXCHANGE,
    { subject_token: first.access_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', resource: audience, role },
    options,
  );
const pair = await client.randomDPoPKeyPair('ES256', { extractable: true });
const DPoP = client.getDPoPHandle(robot, pair);
const jkt = await DPoP.calculateThumbprint();
const told = (token, by = robot) => client.tokenIntrospection(by, token);

// What openid-client would send to the resource.
const url = 'https://api.example.com/things';
const shower = await as('robot');
let sent;
shower[client.customFetch] = async (_, request) => ((sent = new Headers(request.headers)), new Response());
const shown = async (token, by) => {
  await client.fetchProtectedResource(shower, token, new URL(url), 'GET', undefined, undefined, { DPoP: by });
  return sent;
};
// What the resource owner makes of a proof, by the binding that the broker tells.
const proved = async (headers, token, method, { cnf }) => {
  const { payload, protectedHeader } = await jwtVerify(headers.get('dpop'), EmbeddedJWK, { typ: 'dpop+jwt', maxTokenAge: 60 });
  if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== cnf.jkt) return 'another key';
  if (payload.htm !== method || payload.htu !== url) return 'another request';
  return payload.ath === createHash('sha256').update(token).digest('base64url') ? 'proved' : 'another token';
};

for (const role of ['bound', 'opaque-bound', 'opaque']) {
  const token = (await exchange(role, role === 'opaque' ? {} : { DPoP })).access_token;
  const answer = await told(token);
  const { active, token_type, cnf, client_id, aud, scope } = answer;
  const seen = { active, token_type, jkt: cnf ? cnf.jkt === jkt : null, client_id, aud, scope };
  if (cnf) {
    const headers = await shown(token, DPoP);
    seen.scheme = headers.get('authorization').split(' ')[0];
    seen.proof = await proved(headers, token, 'GET', answer);
    seen.other_method = await proved(headers, token, 'DELETE', answer);
    const other = client.getDPoPHandle(robot, await client.randomDPoPKeyPair('ES256'));
    seen.other_key = await proved(await shown(token, other), token, 'GET', answer);
    if (role === 'bound') {
      // The token itself says the same as the answer about it.
      const take = oauth.validateJwtAccessToken(metadata, new Request(url, { headers }), audience, {
        requireDPoP: true,
        [oauth.allowInsecureRequests]: true,
      });
      seen.claims = (await take).cnf.jkt === cnf.jkt;
    }
  }
  seen.to_strangers = await told(token, stranger);
  await client.tokenRevocation(robot, token);
  seen.revoked = await told(token);
  report[role] = seen;
}
console.log(JSON.stringify(report));
