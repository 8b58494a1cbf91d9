// The MCP server that Pilotlight's tests call: the TypeScript SDK's own server and bearer check, protected by
// issuer.mjs. Opaque tokens are introspected at each request, so that what the issuer takes back stops working
// at once; AT_FORMAT=jwt verifies signatures instead.
import { createHash, randomUUID } from 'node:crypto';
import express from 'express';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import * as oauth from 'oauth4webapi';
import { z } from 'zod';
import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import { control, flag, ready, serve, word } from './peer.mjs';

const issuer = process.argv[2];
const accessFormat = word('AT_FORMAT', ['opaque', 'jwt']);
const stateless = flag('STATELESS');
const dpop = flag('DPOP'); // only tokens that are bound to a key, and proven so; with AT_FORMAT=jwt
const dpopNonce = flag('DPOP_NONCE');

const server = await serve();
const resource = `${server.origin}/mcp`;
const metadataUrl = `${server.origin}/.well-known/oauth-protected-resource/mcp`;
const issuerMetadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();

const stats = {
  posts: 0, tool_calls: 0, unauthorized: 0, forbidden: 0, discovery: 0,
  tokens: {}, // requests by access token (a digest of it)
  echoed: {}, // echo calls by text: which of several processes got through
  proofs: 0, // requests with a token that was proven
  bearers: 0, // requests that carried a bearer token although only proven ones are taken
  use_nonce: 0, // requests that were told to use a nonce
};
const proven = new Set(); // the jti of every proof taken
const nonces = new Set();
let rejectNext = 0;

const keys = createRemoteJWKSet(new URL(issuerMetadata.jwks_uri));
async function claimsOf(token) {
  if (accessFormat === 'jwt') return (await jwtVerify(token, keys, { issuer })).payload;
  const answer = await fetch(issuerMetadata.introspection_endpoint, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa('peers-rs:peers-rs-secret')}` },
    body: new URLSearchParams({ token }),
  });
  const claims = await answer.json();
  if (!claims.active) throw new Error('not active');
  return claims;
}
async function verifyAccessToken(token) {
  const claims = await claimsOf(token).catch((error) => { throw new InvalidTokenError(error.message); });
  if (![].concat(claims.aud).includes(resource)) throw new InvalidTokenError('issued for another resource');
  return {
    token, clientId: claims.client_id, scopes: claims.scope?.split(' ') ?? [], expiresAt: claims.exp, extra: { sub: claims.sub },
  };
}
const bearer = (requiredScopes = []) =>
  requireBearerAuth({ verifier: { verifyAccessToken }, requiredScopes, resourceMetadataUrl: metadataUrl });

function authorize(request, response, next) {
  if (rejectNext > 0) {
    rejectNext -= 1;
    response.set('WWW-Authenticate', `Bearer error="invalid_token", resource_metadata="${metadataUrl}"`);
    return response.status(401).json({ error: 'invalid_token' });
  }
  if (dpop) return prove(request, response, next);
  const admin = request.body?.method === 'tools/call' && request.body.params?.name === 'admin';
  return bearer(admin ? ['mcp:admin'] : [])(request, response, next);
}

/** RFC 9449 section 7, as oauth4webapi checks it; nonces and replays are counted here. */
async function prove(request, response, next) {
  const refuse = (status, error, more = {}) => {
    response.set('WWW-Authenticate', `DPoP error="${error}", algs="ES256", resource_metadata="${metadataUrl}"`);
    return response.set(more).status(status).json({ error });
  };
  if (/^bearer /i.test(request.headers.authorization ?? '')) stats.bearers += 1;
  if (!request.headers.authorization) return refuse(401, 'invalid_token');
  try {
    const same = new Request(`${server.origin}${request.originalUrl}`, { method: request.method, headers: request.headers });
    const claims = await oauth.validateJwtAccessToken(issuerMetadata, same, resource, { requireDPoP: true, [oauth.allowInsecureRequests]: true });
    const proof = decodeJwt(request.headers.dpop);
    if (dpopNonce && !nonces.delete(proof.nonce)) {
      stats.use_nonce += 1;
      nonces.add(randomUUID().replaceAll('-', ''));
      return refuse(401, 'use_dpop_nonce', { 'DPoP-Nonce': [...nonces].at(-1) });
    }
    if (proven.has(proof.jti)) return refuse(401, 'invalid_dpop_proof');
    proven.add(proof.jti);
    stats.proofs += 1;
    const scopes = claims.scope?.split(' ') ?? [];
    request.auth = { token: request.headers.authorization.split(' ')[1], clientId: claims.client_id, scopes, expiresAt: claims.exp, extra: { sub: claims.sub } };
  } catch (error) {
    return refuse(401, /DPoP/.test(error.message) ? 'invalid_dpop_proof' : 'invalid_token');
  }
  if (dpopNonce) {
    const nonce = randomUUID().replaceAll('-', '');
    nonces.add(nonce);
    response.set('DPoP-Nonce', nonce); // each is good for one request, and each answer brings the next
  }
  return next();
}

function count(request, response, next) {
  response.on('finish', () => {
    if (response.statusCode === 401) stats.unauthorized += 1;
    if (response.statusCode === 403) stats.forbidden += 1;
    if (!request.auth) return;
    const digest = createHash('sha256').update(request.auth.token).digest('hex').slice(0, 8);
    stats.tokens[digest] = (stats.tokens[digest] ?? 0) + 1;
  });
  next();
}

function tools() {
  const mcp = new McpServer({ name: 'pilotlight-peers', version: '1.0.0' });
  const say = (text) => ({ content: [{ type: 'text', text }] });
  mcp.registerTool('echo', { description: 'Says back its text', inputSchema: { text: z.string() } }, ({ text }) => {
    stats.echoed[text] = (stats.echoed[text] ?? 0) + 1;
    return say(text);
  });
  mcp.registerTool('whoami', { description: 'What the token says', inputSchema: {} }, (_arguments, { authInfo }) => say(JSON.stringify({
    sub: authInfo.extra.sub, client_id: authInfo.clientId, scopes: authInfo.scopes, exp: authInfo.expiresAt,
  })));
  mcp.registerTool('slow', { description: 'Answers after ms milliseconds', inputSchema: { ms: z.coerce.number() } }, async ({ ms }) => {
    await new Promise((resume) => setTimeout(resume, ms));
    return say(`${ms} ms`);
  });
  mcp.registerTool('admin', { description: 'Needs the scope mcp:admin', inputSchema: {} }, () => say('admin'));
  return mcp;
}

const transports = new Map();
async function open(sessions) {
  const transport = new StreamableHTTPServerTransport(sessions
    ? { sessionIdGenerator: randomUUID, onsessioninitialized: (id) => { transports.set(id, transport); } }
    : { sessionIdGenerator: undefined });
  transport.onclose = () => transports.delete(transport.sessionId);
  await tools().connect(transport);
  return transport;
}
async function transportFor(request) {
  if (stateless) return request.method === 'POST' ? open(false) : undefined;
  const id = request.get('mcp-session-id');
  if (id) return transports.get(id);
  return isInitializeRequest(request.body) ? open(true) : undefined;
}

const app = express();
app.use(express.json({ limit: '1mb' }));
app.use('/.well-known', (_request, _response, next) => { stats.discovery += 1; next(); });
app.get('/.well-known/oauth-protected-resource/mcp', (_request, response) => response.json({
  resource, authorization_servers: [issuer], scopes_supported: ['mcp:tools'], bearer_methods_supported: ['header'],
  ...(dpop && { dpop_bound_access_tokens_required: true, dpop_signing_alg_values_supported: ['ES256'] }),
}));
app.all('/mcp', count, authorize, async (request, response) => {
  if (request.method === 'POST') stats.posts += 1;
  if (request.body?.method === 'tools/call') stats.tool_calls += 1;
  const transport = await transportFor(request);
  if (transport) return transport.handleRequest(request, response, request.body);
  return response.status(stateless ? 405 : 404).json({ jsonrpc: '2.0', id: null, error: { code: -32001, message: 'no such session' } });
});

server.on('request', control(app, {
  'GET stats': () => stats,
  'POST reject-next': (n) => ({ reject_next: rejectNext = Number(n) }),
}));
ready({ kind: 'mcp', url: resource, issuer, control: `${server.origin}/__ctl/`, stateless });
