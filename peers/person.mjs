#!/usr/bin/env node
// The person at the browser, without a browser: person.mjs [--deny] AUTHORIZATION_URL
//                                            or: person.mjs [--deny] --code=USER_CODE PAGE
//
// Follows the URL through the issuer's login and consent forms to the client's own redirect, and visits that too,
// as a browser would. --deny logs in and then takes the cancel link. Prints one line per page; exit 0 when the
// client's page answered with success, 1 otherwise. With --code it types the code of a login on another device in at the
// issuer's page, and no redirect follows: exit 0 when the issuer says that it is done. Knows oidc-provider's forms, nothing more.
const [start, ...options] = process.argv.slice(2).reverse();
const deny = options.includes('--deny');
const code = options.find((option) => option.startsWith('--code='))?.slice('--code='.length);
const who = { login: process.env.PERSON ?? 'alice', password: 'correct-horse' };

const cookies = new Map(); // by name: the issuer is the only one who sets any
const redirectUri = code ? undefined : new URL(new URL(start).searchParams.get('redirect_uri'));
const isTheirs = (url) => redirectUri && url.origin === redirectUri.origin && url.pathname === redirectUri.pathname;

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
  const hidden = [...page.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([tag]) => [attribute(tag, 'name'), attribute(tag, 'value')]);
  const { prompt } = Object.fromEntries(hidden);
  const to = (found, name) => new URL(attribute(found?.[0] ?? '', name) ?? fail(`no way on from ${url.pathname}`), url);
  if (deny && prompt === 'consent') return [to(/<a [^>]*abort[^>]*>/.exec(page), 'href')];
  const typed = { ...(prompt === 'login' && who), ...(/name="user_code" placeholder/.test(page) && { user_code: code }) };
  return [to(/<form[^>]*>/.exec(page), 'action'), { ...Object.fromEntries(hidden), ...typed }];
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
  else if (code && /Sign-in Success/.test(page)) process.exit(0);
  else if (code && /interrupted/.test(page)) process.exit(deny ? 0 : 1);
  else if (answer.ok) [url, form] = act(page, url);
  else fail(`the issuer said ${answer.status}: ${page.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ').slice(-200)}`);
}
fail('too many pages');
