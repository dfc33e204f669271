// Somebody who shows another assertion each time: makes a key and writes its JWKS where
// there is none yet, and prints so many tokens, a line each, with an id of its own in each.
//
//   node assertions.mjs KEY_FILE JWKS_FILE COUNT CLAIMS
//
// CLAIMS is JSON: what all of them say.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { SignJWT, exportJWK, generateKeyPair, importJWK } from 'jose';

const [keyFile, jwksFile, count, claims] = process.argv.slice(2);
const named = { alg: 'ES256', use: 'sig', kid: 'assertions-1' };
if (!existsSync(keyFile)) {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  writeFileSync(keyFile, JSON.stringify({ ...(await exportJWK(privateKey)), ...named }), { mode: 0o600 });
  writeFileSync(jwksFile, JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), ...named }] }));
}
const key = await importJWK(JSON.parse(readFileSync(keyFile, 'utf8')), named.alg);
for (let made = 0; made < Number(count); made += 1) {
  const token = new SignJWT({ ...JSON.parse(claims), jti: crypto.randomUUID() })
    .setProtectedHeader({ alg: named.alg, kid: named.kid, typ: 'JWT' })
    .setIssuedAt()
    .setExpirationTime('1h');
  process.stdout.write(`${await token.sign(key)}\n`);
}
