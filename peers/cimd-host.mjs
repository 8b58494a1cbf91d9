// Hosts a client ID metadata document over HTTPS, with a certificate that it makes itself: the issuer must be started with
// NODE_EXTRA_CA_CERTS set to the `ca` of the ready line. Prints the document's URL, which is the client ID.
import https from 'node:https';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { flag, ready } from './peer.mjs';

const folder = mkdtempSync(join(tmpdir(), 'pilotlight-cimd-'));
const [key, ca] = ['key.pem', 'ca.pem'].map((name) => join(folder, name));
execFileSync('openssl', [
  'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
  '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', ca,
], { stdio: 'ignore' });

const stats = { reads: 0 };
const server = https.createServer({ key: readFileSync(key), cert: readFileSync(ca) }, (request, response) => {
  response.setHeader('content-type', 'application/json');
  if (request.url === '/__ctl/stats') return response.end(JSON.stringify(stats));
  stats.reads += 1;
  return response.end(JSON.stringify({
    client_id: `${origin()}${request.url}`, client_name: 'Pilotlight in its tests', application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback'], response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'none',
  }));
});
const origin = () => `https://localhost:${server.address().port}`;
const end = () => {
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
};
process.on('SIGTERM', end).on('SIGINT', end);
if (flag('PEERS_END_WITH_STDIN')) process.stdin.on('end', end).resume();
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  ready({ kind: 'cimd', client_id: `${origin()}/client.json`, ca, control: `${origin()}/__ctl/` });
});
