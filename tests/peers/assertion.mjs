// An issuer that is nothing but a key: writes its JWKS, prints a token for each subject, a line
// each; for alice where none is named.
//
//   node assertion.mjs AUDIENCE JWKS_FILE [SUBJECT...]

import { writeFileSync } from 'node:fs';

import { SignJWT, exportJWK, generateKeyPair } from 'jose';

const [audience, file, ...subjects] = process.argv.slice(2);
const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
const jwk = { ...(await exportJWK(publicKey)), alg: 'ES256', use: 'sig', kid: 'issuer-1' };
writeFileSync(file, JSON.stringify({ keys: [jwk] }), { mode: 0o600 });
for (const subject of subjects.length > 0 ? subjects : ['alice']) {
  const token = new SignJWT({ groups: ['platform', 'staff'], email: `${subject}@example.com` })
    .setProtectedHeader({ alg: 'ES256', kid: jwk.kid, typ: 'JWT' })
    .setIssuer('https://login.example.com')
    .setSubject(subject)
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime('8h');
  console.log(await token.sign(privateKey));
}
