// A resource server in Node, written from the standards alone.
//
// Finds the issuer's keys by discovery and keeps them as `jose` does (remote, with its cooldown),
// checks one task token, prints its claims as JSON, then alters the token in every way an attacker
// would and prints `refused N`. Exit 1 if the token was refused or any altered one was accepted.
//
// usage: NODE_EXTRA_CA_CERTS=CA_FILE node verify_jose.mjs ISSUER AUDIENCE <TOKEN_FILE

import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRemoteJWKSet, errors, exportSPKI, jwtVerify } from 'jose';

const [issuer, audience] = process.argv.slice(2);
const token = readFileSync(0, 'utf8').trim();

const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
if (metadata.issuer !== issuer) throw new Error(`metadata of ${issuer} is for ${metadata.issuer}`);
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));

const verify = (text, aud = audience, iss = issuer) =>
  jwtVerify(text, keys, {
    algorithms: ['ES256'],
    audience: aud,
    issuer: iss,
    typ: 'at+jwt',
    requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id'],
  });

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'));

/** Every forgery of the token, by name. */
async function* altered(publicKey) {
  const [head, payload, signature] = token.split('.');
  const header = decode(head);
  const claims = decode(payload);
  const withHeader = (changes) => encode({ ...header, ...changes });
  const withClaims = (changes) => encode({ ...claims, ...changes });
  const raw = Buffer.from(signature, 'base64url');
  const flipped = Buffer.from(raw);
  flipped[0] ^= 1;

  yield ['a longer life', `${head}.${withClaims({ exp: claims.exp + 3600 })}.${signature}`];
  yield ['another audience in the payload', `${head}.${withClaims({ aud: 'https://other.example' })}.${signature}`];
  yield ['another task', `${head}.${withClaims({ sub: 'spiffe://other.example/x' })}.${signature}`];
  yield ['another signature', `${head}.${payload}.${flipped.toString('base64url')}`];
  yield ['no signature', `${head}.${payload}.`];
  yield ['half a signature', `${head}.${payload}.${raw.subarray(0, 32).toString('base64url')}`];
  yield ['a signature of zeros', `${head}.${payload}.${Buffer.alloc(64).toString('base64url')}`];
  yield ['alg none', `${withHeader({ alg: 'none' })}.${payload}.`];
  yield ['alg none, signature kept', `${withHeader({ alg: 'none' })}.${payload}.${signature}`];

  const hs256 = `${withHeader({ alg: 'HS256' })}.${payload}`;
  const pem = await exportSPKI(publicKey);
  const der = Buffer.from(pem.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64');
  for (const secret of [pem, der, der.subarray(-65)]) {
    yield ['HS256 with the public key', `${hs256}.${createHmac('sha256', secret).update(hs256).digest('base64url')}`];
  }

  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const forged = sign('sha256', Buffer.from(`${head}.${payload}`), { key: stranger, dsaEncoding: 'ieee-p1363' });
  yield ["a stranger's key under our kid", `${head}.${payload}.${forged.toString('base64url')}`];
  yield ['a kid nobody has', `${withHeader({ kid: 'nobody' })}.${payload}.${signature}`];
  yield ['another typ', `${withHeader({ typ: 'JWT' })}.${payload}.${signature}`];
  yield ['the true token at another audience', token, 'https://other.example'];
  yield ['the true token of another issuer', token, audience, `${issuer}/other`];
}

/** Whether a token passes. Only the library's own refusal counts as one. */
async function accepted(text, aud, iss) {
  try {
    await verify(text, aud, iss);
    return true;
  } catch (error) {
    if (error instanceof errors.JOSEError) return false;
    throw error;
  }
}

const { payload: claims, key } = await verify(token);
console.log(JSON.stringify(claims));
let [refused, passed] = [0, 0];
for await (const [name, text, aud, iss] of altered(key)) {
  if (await accepted(text, aud, iss)) {
    console.error(`accepted: ${name}`);
    passed += 1;
  } else {
    refused += 1;
  }
}
console.log(`refused ${refused}`);
process.exitCode = passed === 0 ? 0 : 1;
