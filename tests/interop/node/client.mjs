// A foreign OAuth client, unmodified: `oauth4webapi` as its users write it.
//
// It exchanges a platform's token for a task token that is bound to its key (DPoP), answering
// `use_dpop_nonce` by itself; checks the token as a resource server would; asks as that server, with
// its own `private_key_jwt`, whether the token is active; renews with the handle; revokes; asks again.
//
// usage: node client.mjs key KEY_FILE JWKS_FILE
//        NODE_EXTRA_CA_CERTS=CA_FILE node client.mjs story <JSON
// JSON: issuer, evidence, template, resource, clientId, keyFile. Prints one JSON object.

import { webcrypto } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import * as oauth from 'oauth4webapi';

// Node 18 has them, but not everywhere.
globalThis.crypto ??= webcrypto;
globalThis.CryptoKey ??= webcrypto.CryptoKey;

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const CONTROL = 'urn:dayfly:token-type:task-control';
// A clock that is late: the broker was not running yet, so it wants a nonce.
const LATE_S = 45;

async function makeKey(keyFile, jwksFile) {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const jwk = await exportJWK(publicKey);
  const kid = await calculateJwkThumbprint(jwk);
  writeFileSync(keyFile, JSON.stringify({ ...(await exportJWK(privateKey)), kid }), { mode: 0o600 });
  writeFileSync(jwksFile, JSON.stringify({ keys: [{ ...jwk, kid, use: 'sig', alg: 'ES256' }] }));
}

async function story({ issuer, evidence, template, resource, clientId, keyFile }) {
  const url = new URL(issuer);
  const found = await oauth.discoveryRequest(url, { algorithm: 'oauth2' });
  const as = await oauth.processDiscoveryResponse(url, found);

  const job = { client_id: 'job', [oauth.clockSkew]: -LATE_S };
  const keys = await oauth.generateKeyPair('ES256');
  const DPoP = oauth.DPoP(job, keys);
  const nonces = { wanted: 0 };

  const exchange = async (parameters, options) => {
    const ask = async () => {
      const answer = await oauth.genericTokenEndpointRequest(as, job, oauth.None(), EXCHANGE, parameters, options);
      return oauth.processGenericTokenEndpointResponse(as, job, answer);
    };
    try {
      return await ask();
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error;
      nonces.wanted += 1;
      return ask();
    }
  };
  const refusal = async (asking) => {
    try {
      await asking;
      return null;
    } catch (error) {
      if (error instanceof oauth.ResponseBodyError) return [error.status, error.error, error.cause.reason];
      throw error;
    }
  };

  const first = await exchange(
    { subject_token: evidence, subject_token_type: JWT, scope: template, resource },
    { DPoP },
  );

  // As the resource server: a request of this client is captured, and checked by the library alone.
  let request;
  const captured = async (to, init) => {
    request = new Request(to, init);
    return new Response();
  };
  const api = new URL(resource);
  await oauth.protectedResourceRequest(first.access_token, 'GET', api, undefined, undefined, {
    DPoP: oauth.DPoP({ client_id: 'job' }, keys),
    [oauth.customFetch]: captured,
  });
  const claims = await oauth.validateJwtAccessToken(as, request, resource, { requireDPoP: true });

  const server = { client_id: clientId };
  const jwk = JSON.parse(readFileSync(keyFile));
  const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
  const auth = oauth.PrivateKeyJwt({ key, kid: jwk.kid });
  const introspect = async (token) => {
    const answer = await oauth.introspectionRequest(as, server, auth, token);
    return oauth.processIntrospectionResponse(as, server, answer);
  };
  const seen = await introspect(first.access_token);

  const renew = { subject_token: first.task_control, subject_token_type: CONTROL, supersede: '0' };
  const unproven = await refusal(exchange(renew, {}));
  const stolen = await refusal(exchange(renew, { DPoP: oauth.DPoP(job, await oauth.generateKeyPair('ES256')) }));
  const second = await exchange(renew, { DPoP });
  const superseded = await introspect(first.access_token);
  const renewed = await introspect(second.access_token);

  const revoked = await oauth.revocationRequest(as, job, oauth.None(), second.access_token);
  await oauth.processRevocationResponse(revoked);
  const after = await introspect(second.access_token);

  const jkt = await calculateJwkThumbprint(await exportJWK(keys.publicKey));
  return { first, second, claims, seen, superseded, renewed, after, unproven, stolen, nonces, jkt };
}

const [mode, ...rest] = process.argv.slice(2);
if (mode === 'key') await makeKey(...rest);
else console.log(JSON.stringify(await story(JSON.parse(readFileSync(0, 'utf8')))));
