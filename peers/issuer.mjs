// The authorization server that Pilotlight's tests log in to: the oidc-provider package, configured to
// rotate, to forget and to fail on demand. Every switch is an environment variable (README.md lists them).
import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { control, flag, ready, seconds, serve, word } from './peer.mjs';
import Provider from 'oidc-provider';
import { exportJWK, generateKeyPair } from 'jose';

const accessTtl = seconds('ACCESS_TTL', 20);
const refreshTtl = seconds('REFRESH_TTL', 3600);
const rotate = word('ROTATE', ['always', 'never']);
const accessFormat = word('AT_FORMAT', ['opaque', 'jwt']);
const issueRefresh = word('ISSUE_RT', ['always', 'offline_access', 'never']);
const omitRefreshToken = flag('OMIT_RT');
const omitExpiresIn = flag('OMIT_EXPIRES_IN');
const registration = flag('DCR', true);
const confidentialOnly = flag('NO_PUBLIC');
const dpop = flag('DPOP');
const dpopNonce = flag('DPOP_NONCE');
const metadataDocuments = flag('CIMD');
const serviceKey = process.env.SERVICE_KEY; // a PEM: the client `keyed` signs with it
const deviceLogin = flag('DEVICE');

const stats = {
  token: 0, code_ok: 0, refresh_ok: 0, refresh_err: 0, by_error: {},
  spent_presented: 0, // refresh tokens presented after they had been rotated
  reuse_revocations: 0, // grants revoked because of that
  revocations: 0, // POSTs to the revocation endpoint
  registrations: 0, deregistrations: 0, discovery: 0,
  service_ok: 0, // client credentials granted
  bound_ok: 0, // tokens granted that are bound to a key
  use_nonce: 0, // token requests that were told to use a nonce
  challenges: {}, // authorization requests by code_challenge_method
};
const faults = []; // each is used up by one request to the token endpoint
const issued = new Set(); // every secret ever handed out, so that a test can look for leaks
const grants = new Set();
const accessTokens = new Map(); // the opaque ones, by value: what revoke-access takes back

const server = await serve();
const issuer = server.origin;
const { privateKey } = await generateKeyPair('RS256', { extractable: true });

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: 'peers', alg: 'RS256', use: 'sig' }] },
  cookies: { keys: ['peers'] },
  scopes: ['openid', 'offline_access', 'mcp:tools', 'mcp:admin'],
  clients: knownClients(),
  ...(confidentialOnly && { clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'] }),
  // The package's own refuses addresses on loopback, where the documents of tests lie.
  ...(metadataDocuments && { fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }) }),
  pkce: { required: () => true },
  ttl: {
    AccessToken: accessTtl, ClientCredentials: accessTtl, RefreshToken: refreshTtl, AuthorizationCode: 60, IdToken: 3600,
    Interaction: 3600, Session: 86400, Grant: 86400, DeviceCode: seconds('DEVICE_TTL', 300),
  },
  rotateRefreshToken: () => rotate === 'always',
  issueRefreshToken(_ctx, client, code) {
    if (issueRefresh === 'never' || !client.grantTypeAllowed('refresh_token')) return false;
    return issueRefresh === 'always' || code.scopes.has('offline_access');
  },
  features: {
    devInteractions: { enabled: true }, // the two forms that person.mjs fills in
    registration: { enabled: registration },
    registrationManagement: { enabled: registration },
    revocation: { enabled: true },
    deviceFlow: { enabled: deviceLogin },
    introspection: { enabled: true },
    clientCredentials: { enabled: true },
    dPoP: { enabled: dpop, ...(dpopNonce && { nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true }) },
    clientIdMetadataDocument: { enabled: metadataDocuments, ack: 'draft-02' },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true, // a refresh that names no resource keeps the one it had
      defaultResource: (_ctx, _client, oneOf) => [].concat(oneOf ?? [])[0],
      getResourceServerInfo: (_ctx, resource) => ({
        audience: resource, scope: 'mcp:tools mcp:admin',
        accessTokenFormat: accessFormat, accessTokenTTL: accessTtl,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

/** Clients that need no registration; `peers-rs` is the MCP server, which only introspects. */
function knownClients() {
  const login = {
    application_type: 'native', redirect_uris: ['http://127.0.0.1/callback'], // any port, RFC 8252 s7.3
    grant_types: ['authorization_code', 'refresh_token'],
  };
  const open = { ...login, client_id: 'public', token_endpoint_auth_method: 'none' };
  const closed = { ...login, client_id: 'confidential', client_secret: 'conf-secret' };
  const none = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
  const services = [{ ...none, client_id: 'service', client_secret: 'service-secret' }];
  if (serviceKey) {
    const jwk = createPublicKey(readFileSync(serviceKey)).export({ format: 'jwk' });
    services.push({ ...none, client_id: 'keyed', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [jwk] } });
  }
  const resourceServer = {
    client_id: 'peers-rs', client_secret: 'peers-rs-secret', redirect_uris: [], response_types: [], grant_types: [],
  };
  return [...(confidentialOnly ? [] : [open]), closed, ...services, resourceServer];
}

const counters = { refresh_token: 'refresh_ok', client_credentials: 'service_ok' };
provider.on('grant.success', (ctx) => {
  stats[counters[ctx.oidc.params.grant_type] ?? 'code_ok'] += 1;
  if (ctx.body?.token_type === 'DPoP') stats.bound_ok += 1;
});
provider.on('authorization.accepted', (ctx) => {
  const method = ctx.oidc.params.code_challenge_method ?? 'none';
  stats.challenges[method] = (stats.challenges[method] ?? 0) + 1;
});
provider.on('grant.error', (ctx, error) => {
  stats.by_error[error.error] = (stats.by_error[error.error] ?? 0) + 1;
  if (error.error === 'use_dpop_nonce') stats.use_nonce += 1;
  if (ctx.oidc.params?.grant_type === 'refresh_token') stats.refresh_err += 1;
  if (error.error_detail === 'refresh token already used') stats.spent_presented += 1;
});
provider.on('grant.revoked', (ctx) => {
  if (ctx.path === '/token') stats.reuse_revocations += 1;
});
provider.on('registration_create.success', (_ctx, client) => {
  stats.registrations += 1;
  if (client.clientSecret) issued.add(client.clientSecret);
});
for (const event of ['server_error', 'authorization.error', 'grant.error', 'registration_create.error', 'revocation.error']) {
  provider.on(event, (_ctx, error) => console.error(event, error.message, error.error_detail ?? ''));
}
provider.on('access_token.saved', (token) => {
  grants.add(token.grantId);
  accessTokens.set(token.jti, token);
});
provider.on('access_token.issued', (token) => grants.add(token.grantId));
provider.on('client_credentials.saved', (token) => accessTokens.set(token.jti, token));
provider.on('registration_delete.success', () => { stats.deregistrations += 1; });
for (const event of ['authorization_code.saved', 'device_code.saved', 'registration_access_token.saved']) {
  provider.on(event, (secret) => issued.add(secret.jti));
}

provider.use(async (ctx, next) => {
  if (ctx.path === '/token/revocation') stats.revocations += 1;
  if (ctx.path.includes('/.well-known/')) stats.discovery += 1;
  if (ctx.path === '/token') return tokenRequest(ctx, next);
  return next();
});

async function tokenRequest(ctx, next) {
  stats.token += 1;
  const fault = faults.shift() ?? {};
  if (fault.delay_ms) await new Promise((resume) => setTimeout(resume, fault.delay_ms));
  if (fault.status) {
    if (fault.retry_after !== undefined) ctx.set('Retry-After', String(fault.retry_after));
    ctx.status = fault.status;
    ctx.body = fault.body ?? { error: 'temporarily_unavailable' };
    return;
  }
  await next();
  const answer = ctx.body;
  if (answer?.access_token) {
    issued.add(answer.access_token);
    if (answer.refresh_token) issued.add(answer.refresh_token);
    const refreshing = ctx.oidc.params.grant_type === 'refresh_token';
    if (fault.omit_refresh_token || (omitRefreshToken && refreshing)) delete answer.refresh_token;
    if (fault.omit_expires_in || omitExpiresIn) delete answer.expires_in;
  }
  // The request has been carried out, rotation included; only the client never learns of it.
  if (fault.lose) ctx.req.socket.destroy();
}

const faultKeys = ['status', 'retry_after', 'body', 'delay_ms', 'lose', 'omit_refresh_token', 'omit_expires_in'];

server.on('request', control(provider.callback(), {
  'GET stats': () => stats,
  'GET issued': () => [...issued],
  'POST fault': (_argument, body) => {
    const added = [].concat(body);
    const unknown = added.flatMap(Object.keys).filter((key) => !faultKeys.includes(key));
    if (unknown.length > 0) throw new Error(`no such fault: ${unknown}`);
    return { queued: faults.push(...added) };
  },
  'POST revoke-access': async () => {
    const live = [...accessTokens.values()].filter((token) => !token.isExpired);
    accessTokens.clear();
    await Promise.all(live.map((token) => token.destroy()));
    return { revoked: live.length };
  },
  'POST revoke-all': async () => {
    const models = [provider.AccessToken, provider.RefreshToken];
    await Promise.all([...grants].flatMap((grant) => models.map((model) => model.revokeByGrantId(grant))));
    return { revoked: grants.size };
  },
}));
ready({ kind: 'issuer', issuer, control: `${issuer}/__ctl/`, access_ttl: accessTtl, rotate, at_format: accessFormat, dpop });
