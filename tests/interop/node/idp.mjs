// An identity provider as companies run it: the certified `oidc-provider`, over https on loopback.
//
// Its one client gets tokens by client_credentials with a resource indicator, so they are JWTs for
// that resource (RFC 9068: `typ: at+jwt`). Its keys are made at the start and never leave the
// process; on a word on stdin they are rotated as providers do it.
//
// usage: node idp.mjs CERT_FILE KEY_FILE CLIENT_SECRET [PORT]
// stdout: one JSON object a line: first the issuer, then an answer to each line of stdin:
//   rotate   a new key signs, the old one is still published
//   retire   only the signing key is published
//   state    nothing changes
// The end of stdin ends it.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const [certFile, keyFile, secret, port] = process.argv.slice(2);
const TTL_S = 3600;

// The provider's notices are no answers.
console.info = console.error;

function makeKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const kid = randomBytes(8).toString('hex');
  return { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' };
}

/** A provider that signs with the first key and publishes all. */
function provider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    ttl: { ClientCredentials: TTL_S },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    clients: [
      {
        client_id: 'orders-service',
        client_secret: secret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: '',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: TTL_S,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    // What a company's own provider says of its services.
    extraTokenClaims: () => ({ env: 'staging', team: 'orders' }),
  });
}

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

let keys = [makeKey()];
let fetches = 0;
let serve;
const server = createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (request, response) => {
  if (request.url === '/jwks') fetches += 1;
  serve(request, response);
});

server.listen(Number(port ?? 0), '127.0.0.1', () => {
  const issuer = `https://127.0.0.1:${server.address().port}`;
  const publish = () => {
    serve = provider(issuer, keys).callback();
  };
  publish();
  say({ issuer });
  createInterface({ input: process.stdin })
    .on('line', (word) => {
      if (word === 'rotate') keys = [makeKey(), keys[0]];
      if (word === 'retire') keys = [keys[0]];
      publish();
      say({ kids: keys.map((key) => key.kid), fetches });
    })
    .on('close', () => process.exit(0));
});
