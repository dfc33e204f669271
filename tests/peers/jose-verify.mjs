// Verifies a token as a cloud does that only has an exported discovery document and JWKS:
// node jose-verify.mjs DIRECTORY ISSUER AUDIENCE < token

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createLocalJWKSet, jwtVerify } from "jose";

const [directory, issuer, audience] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(join(directory, name), "utf8"));

const document = read(".well-known/openid-configuration");
if (document.issuer !== issuer) throw new Error(`issuer: ${document.issuer}`);
const base = issuer.replace(/\/$/, "") + "/";
if (!document.jwks_uri.startsWith(base)) throw new Error(`jwks_uri: ${document.jwks_uri}`);
const keys = createLocalJWKSet(read(document.jwks_uri.slice(base.length)));
const algorithms = document.id_token_signing_alg_values_supported;
const token = readFileSync(0, "utf8").trim();
try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms, typ: "at+jwt" });
    console.log(JSON.stringify({ role: payload.role }));
} catch (error) {
    console.log(JSON.stringify({ error: error.code }));
}
