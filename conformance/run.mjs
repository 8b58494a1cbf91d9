// Judges a client by the conformance suite: `node run.mjs PACKAGES CLIENT... [-- HOST BRIDGE]`; conformance/start calls it.
//
// The suite's own verdicts are too kind: of several scenarios at once it forgets how the clients ended, a warning may pass,
// and so does a check that was never made. So each scenario runs alone on each wire that it is for, and is red on a failure, a
// warning, an exit code, a time-out, and on every check missing that checks.json says is to be made. expected.toml names the
// rows that are known to be red, with the reason; one that is green after all is an error. Then come the suite's own commands.
//
// After `--` come a host and the bridge that it is to start: `HOST old|new BRIDGE URL`. Each row is then run with both of its
// kinds too, and judged alike; bridge.toml names what is known of these rows. docs/conformance.md is written by both together.
//
// `--learn` as the first argument writes checks.json instead, by what a client is granted that passes everything.

import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const LEGACY = '2025-11-25';
const WIRES = [LEGACY, '2026-07-28'];
const HOSTS = ['old', 'new'];
// How many rows there are through the bridge.
const BRIDGED = 132;
// With the number of scenarios that each has to run.
const COMMANDS = Object.entries({
  '--requirements 2026-07-28': 39,
  '--requirements 2025-11-25': 25,
  '--suite extensions': 6,
  '--suite backcompat': 2,
  '--suite all': 48,
});
const AT_ONCE = 2;

const args = process.argv.slice(2);
const learns = args[0] === '--learn' && args.shift();
const [packages, ...words] = args;
const cut = words.includes('--') ? words.indexOf('--') : words.length;
const client = words.slice(0, cut);
const [host, bridge] = words.slice(cut + 1);
const here = dirname(fileURLToPath(import.meta.url));
const suite = join(packages, 'node_modules/@modelcontextprotocol/conformance');
const yaml = createRequire(join(packages, 'package.json'))('yaml');
const scratch = mkdtempSync(join(tmpdir(), 'pilotlight-conformance-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const text = path => readFileSync(path, 'utf8');
const key = (name, wire) => `${name} ${wire}`;
const checks = JSON.parse(text(join(here, 'checks.json')));
const expected = entries('expected.toml');
const bridged = entries('bridge.toml');
const [scenarios, matrix, scored] = await rows();
const seen = new Set(scenarios);

if (learns) {
  const learnt = {};
  for (const row of await alone(matrix)) {
    if (row.failed.length > 0) console.log(`${key(row.name, row.wire)}: ${row.failed.join(', ')}`);
    learnt[key(row.name, row.wire)] = row.made;
  }
  writeFileSync(join(here, 'checks.json'), `${JSON.stringify(learnt, null, 1)}\n`);
  process.exit();
}

const count = { passed: 0, failed: 0, known: 0 };
const verdict = (what, red, known) => {
  if (known) known.met = true;
  const stale = known && red.length === 0;
  const kind = stale || (red.length > 0 && !known) ? 'failed' : known ? 'known' : 'passed';
  count[kind] += 1;
  const why = stale ? `is green: take it out of ${known.file}` : (known?.reason ?? red.join('; '));
  console.log(`${{ passed: 'ok  ', failed: 'FAIL', known: 'red ' }[kind]} ${what}${why && ` (${why})`}`);
};

const single = await alone(matrix);
const mayEndSo = new Set();
for (const row of single) {
  if (row.exit && row.runner === 0) mayEndSo.add(key(row.name, row.wire));
  row.red = red(row, ended(row));
  row.known = expected.find(entry => entry.kind === 'scenario' && entry.name === row.name && entry.wires.includes(row.wire));
  verdict(key(row.name, row.wire), row.red, row.known);
}
const together = [];
for (const [command, size] of COMMANDS) {
  const { runner, rows } = await all(command);
  const known = expected.find(entry => entry.kind === 'command' && entry.arguments === command);
  const skipped = rows.filter(row => expected.some(entry => entry.skip && entry.name === row.name));
  const bad = rows.filter(row => row.red.length > 0 && !skipped.includes(row));
  // A command may be known to be red, but only for the rows that are.
  const surprises = bad.filter(row => !single.some(one => one.known && one.name === row.name && one.wire === row.wire));
  const reasons = surprises.map(row => `${key(row.name, row.wire)}: ${row.red.join(', ')}`);
  if (rows.length !== size) reasons.push(`${rows.length} of ${size} scenarios ran to their end`);
  if (reasons.length > 0) {
    verdict(command, reasons);
    if (known) known.met = true;
  } else {
    verdict(command, bad.length > 0 || runner !== 0 ? [`${bad.length} scenarios are red, exit code ${runner}`] : [], known);
  }
  const good = rows.filter(row => !skipped.includes(row) && !bad.includes(row));
  const required = scored.get(command);
  together.push({
    command,
    good: `${good.length} of ${rows.length - skipped.length}`,
    scored: required ? `${good.filter(row => required.includes(row.name)).length} of ${required.length}` : '',
    skipped: skipped.length || '',
  });
}
const through = host ? await throughBridge() : [];
for (const entry of [...expected, ...(host ? bridged : [])].filter(entry => !entry.met)) {
  verdict(`${entry.file}: ${entry.name ?? entry.arguments}`, ['there is no such row']);
}
for (const file of ['main', 'samples', 'host', 'person']) {
  // A host of the old era has to say `initialize`.
  const named = [...seen].filter(word => word !== 'initialize' && text(join(here, `src/${file}.rs`)).includes(word));
  verdict(`src/${file}.rs names nothing of the suite`, named);
}

if (count.failed === 0 && host) verdict('docs/conformance.md', published());
const { passed, failed, known } = count;
console.log(`test result: ${failed ? 'FAILED' : 'ok'}. ${passed} passed; ${failed} failed; ${known} known to be red`);
process.exit(failed ? 1 : 0);

/** Every scenario, every pair of scenario and wire that it is for, and what each `--requirements` scores. */
async function rows() {
  const required = WIRES.map(wire => {
    const { client, not_scored } = yaml.parse(text(join(suite, `requirements/${wire}.yaml`)));
    return [wire, [...client, ...not_scored.filter(one => one.leg === 'client').map(one => one.scenario)], client];
  });
  const listed = (await node(['list', '--client'])).stdout;
  const names = [...listed.matchAll(/^ *- (\S+)/gm)].map(match => match[1]);
  const pairs = names.flatMap(name => {
    const wires = required.filter(([, all]) => all.includes(name)).map(([wire]) => wire);
    return (wires.length > 0 ? wires : [LEGACY]).map(wire => ({ name, wire }));
  });
  return [names, pairs, new Map(required.map(([wire, , client]) => [`--requirements ${wire}`, client]))];
}

/** Runs rows each by itself, a few at a time. */
async function alone(rows) {
  const waiting = [...rows];
  const work = async () => {
    for (let row; (row = waiting.shift());) {
      const folder = mkdtempSync(join(scratch, 'row-'));
      const command = row.host ? [host, row.host, bridge] : client;
      const done = await suiteRun(['--scenario', row.name, '--spec-version', row.wire, '--force'], folder, command);
      Object.assign(row, { runner: done.runner, exit: done.exits.get(key(row.name, row.wire)) }, told(folder, row.name));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return rows;
}

/** Runs every row with a host of each kind before the bridge. */
async function throughBridge() {
  const skipped = expected.filter(entry => entry.skip).map(entry => entry.name);
  const all = matrix.filter(row => !skipped.includes(row.name));
  const rows = await alone(HOSTS.flatMap(kind => all.map(({ name, wire }) => ({ name, wire, host: kind }))));
  for (const row of rows) {
    const about = kind => entry => entry.kind === kind && entry.name === row.name && entry.wires.includes(row.wire) &&
      entry.hosts.includes(row.host);
    row.known = bridged.find(about('scenario'));
    row.red = red(row, !(row.known && row.exit === 0) && ended(row));
    row.helped = bridged.find(about('person'));
    const listed = row.known?.checks ?? [];
    const is = (id, one) => one.endsWith(` ${id}`);
    const surprises = row.red.filter(one => !listed.some(id => is(id, one)));
    // One that is green altogether is told by the verdict below.
    const green = row.red.length > 0 ? listed.filter(id => !row.red.some(one => is(id, one))) : [];
    surprises.push(...green.map(id => `${id} is green: take it out of ${row.known.file}`));
    if (row.helped) row.helped.met = true;
    if (row.helps !== Boolean(row.helped)) surprises.push(row.helps ? 'needed a person' : 'needed nobody: take it out of bridge.toml');
    const what = `${key(row.name, row.wire)}, ${row.host} host`;
    if (surprises.length > 0) verdict(what, surprises);
    else verdict(what, row.red, row.known);
    if (row.known) row.known.met = true;
  }
  verdict('every row was run through the bridge', rows.length === BRIDGED ? [] : [`${rows.length} of ${BRIDGED}`]);
  return rows;
}

function ended(row) {
  return row.runner !== 0 && `the suite ends with ${row.runner}, the client with ${row.exit ?? 'a time-out'}`;
}

/** Runs one of the suite's commands, with all its scenarios at once. */
async function all(command) {
  const folder = mkdtempSync(join(scratch, 'all-'));
  const done = await suiteRun([...command.split(' '), '--timeout', '60000'], folder, client);
  const rows = [...done.exits].map(([pair, exit]) => {
    const [name, wire] = pair.split(' ');
    const row = { name, wire, exit, ...told(folder, name) };
    return { ...row, red: red(row, exit !== 0 && !mayEndSo.has(pair) && `the client ends with ${exit}`) };
  });
  return { runner: done.runner, rows };
}

async function suiteRun(args, folder, judged) {
  const log = join(folder, 'exits');
  writeFileSync(log, '');
  const command = [join(here, 'hide'), ...judged].join(' ');
  const done = await node(['client', '--command', command, ...args, '-o', folder], { HIDDEN_LOG: log, TMPDIR: folder });
  const exits = text(log).trim().split('\n').filter(Boolean).map(line => line.split(' '));
  return { runner: done.code ?? 0, exits: new Map(exits.map(([name, wire, code]) => [key(name, wire), Number(code)])) };
}

async function node(args, environment) {
  const options = { env: { ...process.env, ...environment }, maxBuffer: 1 << 26 };
  return promisify(execFile)(process.execPath, [join(suite, 'dist/index.js'), ...args], options).catch(error => error);
}

/** What the suite wrote down about a scenario. */
function told(folder, name) {
  const parent = join(folder, dirname(name));
  const last = name.split('/').at(-1);
  const results = readdirSync(parent).filter(one => one.startsWith(`${last}-2`));
  const list = results.flatMap(one => JSON.parse(text(join(parent, one, 'checks.json'))));
  const ids = status => [...new Set(list.filter(check => check.status === status).map(check => check.id))].sort();
  for (const check of list) seen.add(check.id);
  const failed = ['FAILURE', 'WARNING'].flatMap(status => ids(status).map(id => `${status} ${id}`));
  const helps = results.some(one => text(join(parent, one, 'stdout.txt')).split('\n').some(line => line.startsWith('person: ')));
  return { failed, made: ids('SUCCESS'), helps };
}

function red(row, ended) {
  const wanted = checks[key(row.name, row.wire)] ?? [];
  const missing = wanted.filter(id => !row.made.includes(id) && !row.failed.some(one => one.endsWith(` ${id}`)));
  const none = row.made.length === 0 && wanted.length === 0;
  return [...row.failed, ...missing.map(id => `missing ${id}`), ended, none && 'nothing is checked'].filter(Boolean);
}

/** Writes the table, or in CI tells that it is not the committed one. */
function published() {
  const path = join(here, '../docs/conformance.md');
  const version = file => JSON.parse(text(join(packages, file))).version;
  const rmcp = /name = "rmcp"\nversion = "([^"]+)"/.exec(text(join(here, '../Cargo.lock')))[1];
  const own = /\[workspace.package\]\nversion = "([^"]+)"/.exec(text(join(here, '../Cargo.toml')))[1];
  const cell = (name, wire, kind) => {
    const row = (kind ? through : single).find(row => row.name === name && row.wire === wire && row.host === kind);
    if (!row) return '';
    if (row.known) return `${row.known.skip ? 'skipped' : '**no**'}: ${row.known.reason}`;
    const count = (checks[key(name, wire)] ?? []).length;
    return `${count} check${count === 1 ? '' : 's'}${row.helped ? ` (${notes.indexOf(row.helped.reason) + 1})` : ''}`;
  };
  const notes = [...new Set(through.filter(row => row.helped).map(row => row.helped.reason))];
  const bridges = WIRES.flatMap(wire => HOSTS.map(kind => [wire, kind]));
  const run = new Set(through.map(row => row.name));
  const good = kind => {
    const bad = new Set(through.filter(row => row.known && (!kind || row.host === kind)).map(row => row.name));
    return `${run.size - bad.size} of ${run.size}`;
  };
  const line = cells => `| ${cells.join(' | ')} |`;
  const page = [
    '# Conformance',
    '',
    'Written by `./test conformance`: every client scenario of the conformance suite of MCP, each alone and on each wire that it',
    'is for, with one generic client ([conformance/src/main.rs](../conformance/src/main.rs)) that is not told which one it is in.',
    'A scenario is passed when each of its checks was made and succeeded, without a warning, and the client ended as it should.',
    '',
    `\`@modelcontextprotocol/conformance\` ${version('node_modules/@modelcontextprotocol/conformance/package.json')}, Node ${process.versions.node}, rmcp ${rmcp}, Pilotlight ${own}.`,
    '',
    line(['scenario', ...WIRES]),
    line(['---', ...WIRES.map(() => '---')]),
    ...scenarios.map(name => line([name, ...WIRES.map(wire => cell(name, wire))])),
    '',
    "The suite's own commands, all scenarios of one at once:",
    '',
    line(['`conformance client`', 'passed', 'scored ones', 'skipped']),
    line(['---', '---', '---', '---']),
    ...together.map(one => line([`\`${one.command}\``, one.good, one.scored, one.skipped])),
    '',
    '## Through the bridge',
    '',
    'The same scenarios, judged by the same checks, with `pilotlight proxy URL` in between, started for each row by a plain host',
    'on stdio ([conformance/src/host.rs](../conformance/src/host.rs)) that knows nothing of OAuth. The *old* host speaks',
    '2025-11-25 and begins with `initialize`; the *new* one speaks 2026-07-28 and does not. The wire is that of the server: where',
    'host and server have no version in common, the bridge translates. What the suite hands over (a client ID, a secret, a key)',
    'stands in the `config.toml` of a home that is made for the row; a browser follows the redirects.',
    '',
    `Scenarios passed on each of their wires: ${good('old')} with the old host, ${good('new')} with the new one, ${good()} with both.`,
    '',
    line(['scenario', ...bridges.map(([wire, kind]) => `${wire}, ${kind} host`)]),
    line(['---', ...bridges.map(() => '---')]),
    ...scenarios.filter(name => run.has(name)).map(name => line([name, ...bridges.map(pair => cell(name, ...pair))])),
    '',
    'Where a person was needed who read the error that the host showed:',
    '',
    ...notes.map((note, at) => `${at + 1}. ${note}`),
    '',
  ].join('\n');
  let before = '';
  try { before = text(path); } catch { /* the first run */ }
  if (page === before) return [];
  if (process.env.CI === 'true') return ['is not what this run found: run ./test conformance and commit it'];
  writeFileSync(path, page);
  return [];
}

/** Reads the little of TOML that these lists need: tables in lists, and values that JSON has too. */
function entries(file) {
  const all = [];
  for (const line of text(join(here, file)).split('\n')) {
    const [, kind] = /^\[\[(\w+)\]\]$/.exec(line) ?? [];
    const [, name, value] = /^(\w+) = (.+)$/.exec(line) ?? [];
    if (kind) all.push({ kind, file });
    else if (name) all.at(-1)[name] = JSON.parse(value);
    else if (line && !line.startsWith('#')) throw Error(`${file}: ${line}`);
  }
  return all;
}
