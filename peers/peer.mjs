// What the two servers share: switches, a loopback socket, control endpoints, the ready line and the way to end.
import http from 'node:http';

// Standard output carries the ready line and nothing else; its reader may hang up after it.
console.log = console.info = console.error;

export const flag = (name, otherwise = false) => ({ 1: true, 0: false })[process.env[name]] ?? otherwise;

export function seconds(name, otherwise) {
  const value = Number(process.env[name] ?? otherwise);
  if (!(value > 0)) throw new Error(`${name} must be a number of seconds`);
  return value;
}

/** One of `words`; the first is the default. A misspelt switch would make a test prove nothing, so it is an error. */
export function word(name, words) {
  const value = process.env[name] ?? words[0];
  if (!words.includes(value)) throw new Error(`${name} must be one of ${words.join(', ')}`);
  return value;
}

/** A server on 127.0.0.1; the port is the last argument of the command line, 0 or none for a free one. */
export async function serve(port = Number(process.argv.at(-1)) || 0) {
  const server = http.createServer();
  await new Promise((bound, failed) => {
    server.once('error', failed);
    server.listen(port, '127.0.0.1', bound);
  });
  server.origin = `http://127.0.0.1:${server.address().port}`;
  const end = () => process.exit(0);
  process.on('SIGTERM', end).on('SIGINT', end);
  // A test that is killed cannot stop its peers; with this switch they end when its end of the pipe closes.
  if (flag('PEERS_END_WITH_STDIN')) process.stdin.on('end', end).resume();
  return server;
}

/** Answers `/__ctl/NAME` and `/__ctl/NAME/ARGUMENT` by `actions`, keyed "METHOD NAME"; the rest goes to `next`. */
export function control(next, actions) {
  return async (request, response) => {
    if (!request.url.startsWith('/__ctl/')) return next(request, response);
    const [name, argument] = request.url.slice('/__ctl/'.length).split('/');
    const action = actions[`${request.method} ${name}`];
    try {
      let text = '';
      for await (const chunk of request) text += chunk;
      if (!action) throw new Error(`no such control: ${request.method} ${name}`);
      reply(response, 200, await action(argument, text ? JSON.parse(text) : {}));
    } catch (error) {
      reply(response, 400, { error: error.message });
    }
    return undefined;
  };
}

function reply(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

export const ready = (facts) => process.stdout.write(`${JSON.stringify({ ready: true, ...facts })}\n`);
