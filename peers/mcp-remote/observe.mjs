// Runs the published mcp-remote over a table of argument lists and writes down what it did: facts only.
//
//   node observe.mjs PATH/TO/node_modules/mcp-remote > ../../crates/cli/src/mcp_remote/observed.json
//
// A server that listens nowhere ends each run soon; what is asked of the program is how it read its arguments. The hash is
// seen by a second run with --debug behind the rest, which names a log file after it.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const home = process.argv[2];
const program = join(home, "dist/proxy.js");
const version = JSON.parse(readFileSync(join(home, "package.json"))).version;

const U = "http://127.0.0.1:9/mcp";
const files = {
  "headers.txt": "# comment\n\nX-File: one\r\nbroken line\nX-Both:file\nX-Empty:\n",
  "client.json": '{"client_id":"from-file","client_secret":"${SECRET}"}',
  "metadata.json": '{"scope":"a b"}',
};
const env = { SECRET: "s3cret", EMPTY: "", TENANT: "acme" };

const table = [
  [], ["--help"], ["-h"], [U, "--help"], ["--version"], ["-v"], ["notaurl"], ["--debug", U], [U],
  ["https://127.0.0.1:9/mcp"], ["http://localhost:9/mcp"], ["http://[::1]:9/mcp"], ["http://example.com/mcp"],
  ["http://127.0.0.2:9/mcp", "--allow-http"], ["HTTP://LOCALHOST:9/mcp"],
  [U, "3000"], [U, "3000abc"], [U, "0"], [U, "abc"], [U, "0x1F90"], [U, " 4000"], [U, "--debug", "3000"],
  [U, "--transport", "sse-only", "3000"], [U, "--unknown", "x"], [U, "--unknown=x"], [U, "extra", "3000"],
  [U, "--transport", "sse-only"], [U, "--transport", "http-only"], [U, "--transport", "sse-first"],
  [U, "--transport", "bogus"], [U, "--transport=sse-only"], [U, "--transport"],
  [U, "--transport", "sse-only", "--transport", "http-only"],
  [U, "--protocol", "auto"], [U, "--protocol", "modern"], [U, "--host", "127.0.0.1"], [U, "--host", "--debug"],
  [U, "--callback-path", "/cb"], [U, "--callback-path", "cb"], [U, "--callback-path", "/wait-for-auth"],
  [U, "--callback-path", "/.mcp-remote/id"],
  [U, "--connect-timeout", "1.5"], [U, "--connect-timeout", "0"], [U, "--connect-timeout", "-1"],
  [U, "--connect-timeout", "1e1"], [U, "--connect-timeout", "0x10"], [U, "--connect-timeout", "5s"],
  [U, "--connect-timeout", "Infinity"], [U, "--body-timeout", "0"], [U, "--headers-timeout", "2"],
  [U, "--headers-timeout", ""], [U, "--auth-timeout", "60"], [U, "--auth-timeout", "60s"],
  [U, "--auth-timeout", "0"], [U, "--auth-timeout", "x"], [U, "--ping-interval", "5"], [U, "--ping-interval", "0"],
  [U, "--header", "X-A: one"], ["--header", "X-A: one", U], [U, "--header", "X-A:one", "4000"],
  [U, "--header", "X-A: one", "--header", "X-B: two"], [U, "--header", "X-B: two", "--header", "X-A: one"],
  [U, "--header", "X-A: one", "--header", "X-A: two"], [U, "--header", "no header"], [U, "--header"],
  [U, "--header", "X A: one"], [U, "--header", "X-A: ${TENANT}"], [U, "--header", "X-A: ${NOT_SET_HERE}"],
  [U, "--header", "X-A: ${EMPTY}"], [U, "--header", "X-A:\tquote\" back\\ é"], [U, "--header", "X-A: a:b"],
  [U, "--header-file", "headers.txt"], [U, "--header", "X-Both: flag", "--header-file", "headers.txt"],
  [U, "--header-file", "headers.txt", "--header", "X-Both: flag"], [U, "--header-file", "missing.txt"],
  [U, "--resource", "https://api.example.com/mcp"], [U, "--resource", ""], [U, "--resource", " https://a.example "],
  [U, "--resource", "nonsense"], [U, "--disable-resource-parameter"],
  [U, "--resource", "https://a.example", "--disable-resource-parameter"],
  [U, "--authorize-param", "audience=x"], [U, "--authorize-param", "b=1", "--authorize-param", "a=2"],
  [U, "--authorize-param", "a=1", "--authorize-param", "a=2"], [U, "--authorize-param", "=x"],
  [U, "--authorize-param", "noequals"], [U, "--authorize-param", "state=x"], [U, "--authorize-param", "redirect_uri=x"],
  [U, "--authorize-param", "code_challenge=x"], [U, "--authorize-param", "resource=https://a.example"],
  [U, "--authorize-param", "é=1", "--authorize-param", "z=\u{1F600}"], [U, "--authorize-param"],
  [U, "--auth-success-url", "https://a.example/done"], [U, "--auth-success-url", "http://a.example/done"],
  [U, "--auth-success-url", "http://a.example/done", "--allow-http"], [U, "--auth-success-url", "http://localhost/x"],
  [U, "--auth-success-url", "https://a.example/done?x"], [U, "--auth-success-url", "https://u:p@a.example/"],
  [U, "--auth-success-url"], [U, "--auth-success-url", "https://a.example", "--auth-success-url", "https://b.example"],
  [U, "--static-oauth-client-metadata", '{"scope":"x"}'], [U, "--static-oauth-client-metadata", "@metadata.json"],
  [U, "--static-oauth-client-metadata", "{bad"], [U, "--static-oauth-client-metadata", "@missing.json"],
  [U, "--static-oauth-client-info", '{"client_id":"x"}'], [U, "--static-oauth-client-info", "@client.json"],
  [U, "--static-oauth-client-info", '{"client_id":"x","client_secret":"${SECRET}"}'],
  [U, "--static-oauth-client-info", '{"client_id":"${NOT_SET_HERE}"}'], [U, "--static-oauth-client-info", "{bad"],
  [U, "--static-oauth-client-info", "@missing.json"],
  [U, "--client-metadata-url", "https://c.example/client.json"], [U, "--client-metadata-url", " https://c.example/c "],
  [U, "--client-metadata-url", "http://c.example/client.json"], [U, "--client-metadata-url", "https://c.example"],
  [U, "--device-code"], [U, "--client-credentials"], [U, "--client-credentials", "--device-code"],
  [U, "--token-endpoint", "https://as.example/token"], [U, "--client-credentials", "--token-endpoint"],
  [U, "--client-credentials", "--token-endpoint", "https://AS.example/token"],
  [U, "--client-credentials", "--token-endpoint", "http://as.example/token"],
  [U, "--client-credentials", "--token-endpoint", "http://127.0.0.1:9/token"],
  [U, "--client-credentials", "--token-endpoint", "https://u:p@as.example/token"],
  [U, "--client-credentials", "--token-endpoint", "https://as.example/token#x"],
  [U, "--client-credentials", "--token-endpoint", "nonsense"],
  [U, "--use-id-token"], [U, "--keep-alive"], [U, "--ipv4"], [U, "--enable-proxy"], [U, "--disable-cookies"],
  [U, "--ignore-tool", "delete*"], [U, "--ignore-tool", "a", "--ignore-tool", "b"], [U, "--ignore-tool"],
  [U, "--silent"], [U, "--silent", "--unknown"],
  [U, "--resource", "https://a.example", "--authorize-param", "x=y", "--header", "A: b", "--client-metadata-url",
    "https://c.example/c", "--client-credentials", "--token-endpoint", "https://as.example/t"],
];

function run(args) {
  const folder = mkdtempSync(join(tmpdir(), "observe-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const store = join(folder, "auth");
  const done = spawnSync(process.execPath, [program, ...args], {
    cwd: folder, encoding: "utf8", timeout: 20000, input: "",
    env: { PATH: process.env.PATH, HOME: folder, MCP_REMOTE_CONFIG_DIR: store, ...env },
  });
  let hash;
  try {
    const log = readdirSync(join(store, "mcp-remote-v1")).find((name) => name.endsWith("_debug.log"));
    hash = log?.split("_")[0];
  } catch {}
  rmSync(folder, { recursive: true });
  return { ...done, hash };
}

const first = (text, pattern) => text.match(pattern)?.[1];
const observed = table.map((args) => {
  const { status, stdout, stderr } = run(args);
  const ran = stderr.includes("Discovering OAuth server configuration") || (status === 1 && stderr === "" && args.includes("--silent"));
  const fact = { args, exit: status };
  fact.stdout = stdout.startsWith("Usage:") ? "usage" : stdout.trim() === version ? "version" : stdout === "" ? "nothing" : "other";
  fact.did = ran ? "ran" : /Fatal error/.test(stderr) ? "failed" : /Usage:/.test(stderr) ? "usage" : "answered";
  fact.quiet = stderr === "";
  if (ran) {
    const head = stderr.split("Discovering OAuth")[0];
    const warned = (head.match(/\] Warning: /g) ?? []).length;
    if (warned) fact.warned = warned;
    const seen = {
      port: first(head, /specified callback port: (.+)/) ?? first(head, /derived from the server URL: (\d+)/),
      strict: /specified callback port/.test(head) || undefined,
      transport: first(head, /Using transport strategy: (.+)/),
      protocol: first(head, /Using protocol mode: (.+)/),
      host: first(head, /Using callback hostname: (.+)/),
      path: first(head, /Using callback path: (.+)/),
      connect: first(head, /Using connect timeout: (.+) seconds/),
      body: first(head, /Using body timeout: (\S+)/),
      headers_wait: first(head, /Using headers timeout: (\S+)/),
      auth: first(head, /Using auth callback timeout: (\d+)/),
      resource: first(head, /Using authorize resource: (.+)/),
      left_out: /Resource parameter disabled/.test(head) || undefined,
      params: first(head, /Using extra authorization parameters: (.+)/),
      headers: first(head, /Using custom headers: (.+)/),
      tools: [...head.matchAll(/Ignoring tool: (.+)/g)].map((one) => one[1]).join(" ") || undefined,
    };
    Object.assign(fact, JSON.parse(JSON.stringify(seen)));
    fact.hash = run([...args, "--debug"]).hash;
  }
  return fact;
});
console.log(`{"mcp-remote":"${version}","observed":[`);
console.log(observed.map((one) => JSON.stringify(one)).join(",\n"));
console.log("]}");
