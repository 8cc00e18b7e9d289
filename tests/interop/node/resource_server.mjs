// A resource server that accepts Dayfly's task tokens, with jose and Node's own http and fetch.
//
// usage: node resource_server.mjs ISSUER AUDIENCE CLIENT_ID KEY_FILE ACTION [PORT]
// The roots that vouch for the broker, where they are not the machine's: NODE_EXTRA_CA_CERTS=FILE

import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { SignJWT, calculateJwkThumbprint, createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';

const TIMEOUT_MS = 2_000;
const ASSERTION_S = 300;
const RENEW_S = 60;
const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'authorization_details'];

// What jose says of a bad token; whatever else goes wrong is not the token's fault.
const BAD_TOKEN = new Set([
  'ERR_JOSE_ALG_NOT_ALLOWED', 'ERR_JOSE_NOT_SUPPORTED', 'ERR_JWKS_NO_MATCHING_KEY', 'ERR_JWS_INVALID',
  'ERR_JWS_SIGNATURE_VERIFICATION_FAILED', 'ERR_JWT_CLAIM_VALIDATION_FAILED', 'ERR_JWT_EXPIRED', 'ERR_JWT_INVALID',
]);

/** The token is not good: 401. Every other error is 503, and nobody gets in. */
class Refused extends Error {}

async function get(url, form) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(url, { method: form ? 'POST' : 'GET', body: form, redirect: 'error', signal });
  if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`);
  return answer.json();
}

/** Checks a token's signature and claims, then asks the broker whether it is still active. */
class Broker {
  static async find(issuer, audience, clientId, keyFile) {
    const metadata = await get(`${issuer}/.well-known/oauth-authorization-server`);
    if (metadata.issuer !== issuer) throw new Error('metadata of another issuer');
    const key = createPrivateKey(readFileSync(keyFile));
    const kid = await calculateJwkThumbprint(createPublicKey(key).export({ format: 'jwk' }));
    // Keys are fetched again after 5 minutes, and for an unknown `kid` at most every 30 s.
    const times = { cacheMaxAge: 300_000, cooldownDuration: 30_000, timeoutDuration: TIMEOUT_MS };
    const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), times);
    return Object.assign(new Broker(), { issuer, audience, clientId, key, kid, keys, made: 0, kept: undefined });
  }

  /** The claims of an active token for this server; throws otherwise. */
  async check(token) {
    const claims = await this.verified(token);
    if (typeof claims.aud !== 'string') throw new Refused('more than one audience');
    if ('cnf' in claims) throw new Refused('bound to a key, and this server checks no proof');
    if (!(await this.active(token, claims.jti))) throw new Refused('not active');
    return claims;
  }

  async verified(token) {
    const { issuer, audience, keys } = this;
    const rules = { issuer, audience, algorithms: ['ES256'], typ: 'at+jwt', requiredClaims: CLAIMS };
    if (!named(token)) throw new Refused('no key is named');
    try {
      return (await jwtVerify(token, keys, rules)).payload;
    } catch (error) {
      throw BAD_TOKEN.has(error.code) ? new Refused(error.code) : error;
    }
  }

  /** RFC 7662. Each request asks, so an end is heard by the very next one. */
  async active(token, jti) {
    const form = { token, client_assertion_type: JWT_BEARER, client_assertion: await this.assertion() };
    const answer = await get(`${this.issuer}/oauth2/introspect`, new URLSearchParams(form));
    return answer.active === true && answer.jti === jti;
  }

  /** RFC 7523. Used again until its last minute: the broker remembers that it is good. */
  async assertion() {
    const now = Math.floor(Date.now() / 1000);
    if (now < this.made || now >= this.made + ASSERTION_S - RENEW_S) {
      const claims = { iss: this.clientId, sub: this.clientId, aud: this.issuer, iat: now - 5, exp: now + ASSERTION_S };
      const header = { alg: 'ES256', typ: 'JWT', kid: this.kid };
      this.kept = await new SignJWT(claims).setProtectedHeader(header).sign(this.key);
      this.made = now;
    }
    return this.kept;
  }
}

/** Whether the header names a key, as every token of the broker does: without a name jose would guess. */
function named(token) {
  try {
    return typeof decodeProtectedHeader(token).kid === 'string';
  } catch {
    return false;
  }
}

const allows = (claims, action) => claims.authorization_details.some((detail) => detail.actions?.includes(action));

async function answer(broker, action, request) {
  const sent = request.headersDistinct.authorization ?? [];
  const [scheme, token] = sent.length === 1 ? sent[0].split(' ', 2) : [];
  if (scheme?.toLowerCase() !== 'bearer' || !token) return [401, 'Bearer'];
  try {
    const claims = await broker.check(token);
    if (!allows(claims, action)) return [403, `Bearer error="insufficient_scope", scope="${action}"`];
    return [200, undefined, `rows for ${claims.sub} in ${claims.txn}\n`];
  } catch (error) {
    console.error(error instanceof Refused ? 'refused:' : 'the broker:', error.message);
    return error instanceof Refused ? [401, 'Bearer error="invalid_token"'] : [503];
  }
}

const [issuer, audience, clientId, keyFile, action, port = '0'] = process.argv.slice(2);
const broker = await Broker.find(issuer, audience, clientId, keyFile);
const server = createServer(async (request, response) => {
  const [status, challenge, text = ''] = await answer(broker, action, request);
  response.writeHead(status, challenge ? { 'www-authenticate': challenge } : {}).end(text);
});
server.listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
