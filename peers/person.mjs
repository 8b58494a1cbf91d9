#!/usr/bin/env node
// The person at the browser, without a browser: person.mjs [--deny] AUTHORIZATION_URL
//
// Follows the URL through the issuer's login and consent forms to the client's own redirect, and visits that too,
// as a browser would. --deny logs in and then takes the cancel link. Prints one line per page; exit 0 when the
// client's page answered with success, 1 otherwise. Knows oidc-provider's two forms, nothing more.
const [start, ...options] = process.argv.slice(2).reverse();
const deny = options.includes('--deny');
const who = { login: process.env.PERSON ?? 'alice', password: 'correct-horse' };

const cookies = new Map(); // by name: the issuer is the only one who sets any
const redirectUri = new URL(new URL(start).searchParams.get('redirect_uri'));
const isTheirs = (url) => url.origin === redirectUri.origin && url.pathname === redirectUri.pathname;

async function visit(url, form) {
  const answer = await fetch(url, {
    method: form ? 'POST' : 'GET',
    body: form && new URLSearchParams(form),
    redirect: 'manual',
    headers: isTheirs(url) ? {} : { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
  });
  for (const line of answer.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) cookies.set(name, value); else cookies.delete(name);
  }
  // The query holds the code and the state: not for a log.
  console.log(`${form ? 'POST' : 'GET'} ${url.origin}${url.pathname} -> ${answer.status}`);
  return answer;
}

const attribute = (tag, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1].replaceAll('&amp;', '&');

/** What a person does with a page of the issuer: the next address, and the form to send there, if any. */
function act(page, url) {
  const prompt = attribute(/<input[^>]*name="prompt"[^>]*>/.exec(page)?.[0] ?? '', 'value');
  const to = (found, name) => new URL(attribute(found?.[0] ?? '', name) ?? fail(`no way on from ${url.pathname}`), url);
  if (deny && prompt === 'consent') return [to(/<a [^>]*abort[^>]*>/.exec(page), 'href')];
  return [to(/<form[^>]*>/.exec(page), 'action'), { prompt, ...(prompt === 'login' && who) }];
}

function fail(reason) {
  console.log(`gave up: ${reason}`);
  process.exit(1);
}

let [url, form] = [new URL(start)];
for (let step = 0; step < 20; step += 1) {
  const answer = await visit(url, form).catch((error) => fail(`${url.origin}: ${error.cause?.code ?? error.message}`));
  if (isTheirs(url)) process.exit(answer.ok ? 0 : 1);
  const onward = answer.headers.get('location');
  const page = await answer.text();
  if (onward) [url, form] = [new URL(onward, url)];
  else if (answer.ok) [url, form] = act(page, url);
  else fail(`the issuer said ${answer.status}: ${page.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ').slice(-200)}`);
}
fail('too many pages');
