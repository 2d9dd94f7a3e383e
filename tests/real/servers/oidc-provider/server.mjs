// A real OAuth 2.0 authorization server for the tests: npm oidc-provider, all in memory, on loopback.
// It must not know who starts it. When it answers, it writes one line of JSON to the file descriptor READY_FD
// ({ url, port, clients }); it ends on SIGTERM, and when its standard input ends: that is its parent's death.
// env: READY_FD, PKI (folder, see certificates.py), PORT (0: a free one), ACCESS_TTL, REFRESH_TTL, DEVICE_TTL,
//      ROTATE (1|0), FORCE_ACCESS_FORMAT (opaque|jwt), SKEW (seconds by which the server's clock is ahead)
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as https from 'node:https';
import * as path from 'node:path';
import { Provider, errors } from 'oidc-provider';
import { JWT_BEARER, TOKEN_EXCHANGE, register } from './grants.mjs';
import { paths, protectedResources } from './resources.mjs';

const env = process.env;
const PORT = Number(env.PORT ?? 0);
const ACCESS_TTL = Number(env.ACCESS_TTL ?? 60);
const REFRESH_TTL = Number(env.REFRESH_TTL ?? 3600);
const DEVICE_TTL = Number(env.DEVICE_TTL ?? 300);
const ROTATE = (env.ROTATE ?? '1') === '1';
const SKEW = Number(env.SKEW ?? 0);

process.stdin.resume();
for (const end of ['end', 'error', 'close']) process.stdin.on(end, () => process.exit(0));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));

if (SKEW) {
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...args) { super(...(args.length ? args : [RealDate.now() + SKEW * 1000])); }
    static now() { return RealDate.now() + SKEW * 1000; }
  };
}

const read = (name) => fs.readFileSync(path.join(env.PKI, name), 'utf8');
const jwkOf = (pem, extra) => ({ ...crypto.createPublicKey(pem).export({ format: 'jwk' }), ...extra });
const EC_JWK = jwkOf(read('pkjwt.pub'), { kid: 'ec1', alg: 'ES256', use: 'sig' });
const RSA_JWK = jwkOf(read('pkjwt-rsa.pub'), { kid: 'rsa1', use: 'sig' });
const ED_JWK = jwkOf(read('pkjwt-ed.pub'), { kid: 'ed1', use: 'sig' });
const SELF = new crypto.X509Certificate(read('selfclient.pem'));
const SELF_JWK = jwkOf(SELF.publicKey.export({ type: 'spki', format: 'pem' }),
  { kid: 'self1', use: 'sig', alg: 'ES256', x5c: [SELF.raw.toString('base64')] });

const SECRET = 'test-secret-0123456789-0123456789'; // test-only, public
const BASIC = { client_secret: SECRET, token_endpoint_auth_method: 'client_secret_basic' };
const POST = { client_secret: SECRET, token_endpoint_auth_method: 'client_secret_post' };
const PUBLIC = { token_endpoint_auth_method: 'none', application_type: 'native' };
const API = 'api:read api:write';
const LOGIN = 'openid offline_access api:read api:write';
const CC = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: API };
const DEVICE = { grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'], redirect_uris: [], response_types: [], scope: LOGIN };
const CODE = { grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], scope: LOGIN };

// The tests' name for a client -> its metadata; the name is the client_id where none is given.
const CLIENTS = {
  'cc-basic': { ...BASIC, ...CC },
  'cc-post': { ...POST, ...CC },
  // ids and secrets with characters that RFC 6749 2.3.1 wants form-encoded inside Basic
  'cc-odd-id': { ...BASIC, ...CC, client_id: 'cc:odd id', client_secret: 'p%ss w+rd:/&=?-0123456789-0123456789', scope: 'api:read' },
  'odd-basic': { ...BASIC, ...CC, client_id: 'basic: 100%/a+b&c d', client_secret: 's:e%20c+r/e&t =-0123456789-0123456789' },
  'odd-post': { ...POST, ...CC, client_id: 'post: 100%/a+b&c d', client_secret: 's:e%20c+r/e&t =-0123456789-0123456789' },
  'cc-secretjwt': { ...CC, client_secret: SECRET, token_endpoint_auth_method: 'client_secret_jwt' },
  'cc-pkjwt': { ...CC, token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [EC_JWK, RSA_JWK, ED_JWK] } },
  'cc-dpop': { ...BASIC, ...CC, dpop_bound_access_tokens: true },
  'cc-dpop-nonce': { ...BASIC, ...CC, dpop_bound_access_tokens: true },
  'cc-mtls-ca': { ...CC, token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_dns: 'mtls-client.test', tls_client_certificate_bound_access_tokens: true },
  'cc-mtls-self': { ...CC, token_endpoint_auth_method: 'self_signed_tls_client_auth', jwks: { keys: [SELF_JWK] }, tls_client_certificate_bound_access_tokens: true },
  'dev-public': { ...PUBLIC, ...DEVICE },
  'dev-basic': { ...BASIC, ...DEVICE },
  'dev-post': { ...POST, ...DEVICE },
  'dev-norotate': { ...POST, ...DEVICE },
  'dev-pkjwt': { ...DEVICE, token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [EC_JWK] } },
  'dev-dpop': { ...PUBLIC, ...DEVICE, dpop_bound_access_tokens: true },
  'bearer-public': { ...PUBLIC, grant_types: [JWT_BEARER], redirect_uris: [], response_types: [], scope: API },
  'bearer-basic': { ...BASIC, grant_types: [JWT_BEARER], redirect_uris: [], response_types: [], scope: API },
  'exchange-basic': { ...BASIC, grant_types: [TOKEN_EXCHANGE], redirect_uris: [], response_types: [], scope: API },
  'code-pkce': { ...PUBLIC, ...CODE, redirect_uris: ['http://127.0.0.1/callback'] },
  'code-par': { ...BASIC, ...CODE, redirect_uris: ['https://client.test/cb'], require_pushed_authorization_requests: true },
  // the resource server: may introspect and revoke what others own
  rs: { ...BASIC, grant_types: [], redirect_uris: [], response_types: [] },
};
for (const [name, client] of Object.entries(CLIENTS)) client.client_id ??= name;

const RESOURCES = {
  'urn:api:opaque': { scope: API, audience: 'urn:api:opaque', accessTokenTTL: ACCESS_TTL, accessTokenFormat: 'opaque' },
  'https://api.test/jwt': { scope: API, audience: 'https://api.test/jwt', accessTokenTTL: ACCESS_TTL, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } },
};

const peerCertificate = (ctx) => {
  const peer = ctx.socket.getPeerCertificate(false);
  return peer?.raw ? new crypto.X509Certificate(peer.raw) : undefined;
};
const ownOrResourceServer = async (ctx, client, token) => client.clientId === 'rs' || token.clientId === client.clientId;
const SIGNING_JWK = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

const configuration = {
  clients: Object.values(CLIENTS),
  // no RSA key of its own, as RS256 would want: making one takes up to a second
  jwks: { keys: [{ ...SIGNING_JWK, kid: 'as-ec', use: 'sig', alg: 'ES256' }] },
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  cookies: { keys: [crypto.randomBytes(16).toString('hex')] },
  scopes: ['openid', 'offline_access', 'api:read', 'api:write'],
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth', 'none'],
  rotateRefreshToken: (ctx) => ROTATE && ctx.oidc.client.clientId !== 'dev-norotate',
  issueRefreshToken: async (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  pkce: { required: () => true },
  ttl: {
    AccessToken: ACCESS_TTL, ClientCredentials: ACCESS_TTL, RefreshToken: REFRESH_TTL,
    DeviceCode: DEVICE_TTL, AuthorizationCode: 60, IdToken: 300, Grant: 86400, Interaction: 600, Session: 86400,
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true, charset: 'base-20', mask: '****-****' },
    revocation: { enabled: true, allowedPolicy: ownOrResourceServer },
    introspection: { enabled: true, allowedPolicy: ownOrResourceServer },
    registration: { enabled: true }, // everybody may (RFC 7591 §3), as MCP servers want it
    dPoP: { enabled: true, nonceSecret: crypto.randomBytes(32), requireNonce: (ctx) => ctx.oidc.client?.clientId === 'cc-dpop-nonce' },
    pushedAuthorizationRequests: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (ctx, client, oneOf) => (oneOf?.length ? oneOf[0] : 'urn:api:opaque'),
      useGrantedResource: async () => true,
      getResourceServerInfo: async (ctx, indicator) => {
        const resource = RESOURCES[indicator];
        if (!resource) throw new errors.InvalidTarget();
        return env.FORCE_ACCESS_FORMAT ? { ...resource, accessTokenFormat: env.FORCE_ACCESS_FORMAT } : resource;
      },
    },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true, tlsClientAuth: true, selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => peerCertificate(ctx)?.toString(),
      certificateAuthorized: (ctx) => ctx.socket.authorized === true,
      certificateSubjectMatches: (ctx, property, expected) => {
        const peer = peerCertificate(ctx);
        if (!peer || property !== 'tls_client_auth_san_dns') return false;
        return (peer.subjectAltName ?? '').split(', ').includes(`DNS:${expected}`);
      },
    },
  },
};

// The journal: one line for each answer of the token endpoint. Never the tokens themselves.
const log = (...words) => console.log(new Date().toISOString(), ...words);
const listening = () => {
  const { port } = server.address();
  const url = `https://localhost:${port}`;
  const provider = new Provider(url, configuration);
  provider.on('grant.success', (ctx) => log('grant.success', ctx.oidc.client.clientId, ctx.oidc.params.grant_type));
  provider.on('grant.error', (ctx, e) => log('grant.error', ctx.oidc?.client?.clientId, ctx.oidc?.params?.grant_type, e.error, e.error_detail ?? e.error_description));
  provider.on('grant.revoked', (ctx) => log('grant.revoked', ctx.oidc?.client?.clientId));
  // Every token and code that it gives out, in a file of their own: for tests that look for them where they must not be.
  for (const kind of ['access_token', 'client_credentials', 'refresh_token', 'authorization_code', 'device_code']) {
    provider.on(`${kind}.saved`, (token) => fs.appendFileSync(path.join(env.PKI, 'issued'), `${token.jti}\n`));
  }
  provider.on('server_error', (ctx, e) => log('server_error', e.stack));
  register(provider, [url, `${url}/token`], [EC_JWK, RSA_JWK]);
  for (const each of paths) RESOURCES[`${url}${each}`] = { ...RESOURCES['urn:api:opaque'], audience: `${url}${each}` };
  const answerAsResource = protectedResources(url);
  const answer = provider.callback();
  server.on('request', (request, response) => {
    if (SKEW) response.setHeader('Date', new Date().toUTCString()); // node's own header does not go through our Date
    if (request.url.startsWith('/.well-known/')) log('discovery', request.url);
    if (request.url === '/healthz') response.end('ok\n');
    else if (!answerAsResource(request, response)) answer(request, response);
  });
  const clients = Object.fromEntries(Object.entries(CLIENTS).map(([name, c]) => [name,
    { id: c.client_id, secret: c.client_secret ?? null, auth: c.token_endpoint_auth_method, scope: c.scope ?? '' }]));
  fs.writeSync(Number(env.READY_FD), `${JSON.stringify({ url, port, clients })}\n`);
  fs.closeSync(Number(env.READY_FD));
};
const server = https.createServer({
  key: read('server.key'), cert: read('server.pem'), ca: read('ca.pem'), requestCert: true, rejectUnauthorized: false,
});
server.listen(PORT, '127.0.0.1', listening);
