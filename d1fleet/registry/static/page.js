// Gets a page of the panel, and shows its newer parts in this one.
'use strict';

import { morph, morphParts } from './morph.js';
import { setClock, tick } from './ticking.js';

const FLOATS_MS = 8000;
const LIVE = { 'X-D1fleet-Live': '1' };

const isSignIn = (answer) => new URL(answer.url).pathname === '/sign-in';

const parsed = async (answer) => new DOMParser().parseFromString(await answer.text(), 'text/html');

// The page at an address, or what stands in its way: { page } or { fault, status }.
export async function get(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { credentials: 'same-origin', cache: 'no-store', ...options });
  } catch {
    return { fault: 'away' };
  }
  if (isSignIn(answer)) return { fault: 'signed-out' };
  const page = await parsed(answer);
  return { page, url: new URL(answer.url), status: answer.status, fault: answer.ok ? '' : 'refused' };
}

export const getNews = (address) => get(address, { headers: LIVE });

export const post = (form) => get(form.action, { method: 'POST', body: new URLSearchParams(new FormData(form)) });

// Show what a newer page has.
export function show(page) {
  morphParts(page);
  setClock(page);
  tick();
}

const messages = document.getElementById('messages');

// What is said of something far down the page is seen there, too.
function float() {
  messages.classList.toggle('floating', messages.getBoundingClientRect().top < 0);
  setTimeout(() => messages.classList.remove('floating'), FLOATS_MS);
}

export function showMessages(page) {
  const fresh = page.getElementById('messages');
  if (fresh) morph(messages, fresh);
  float();
}

export function say(text, kind = 'refused') {
  const line = document.createElement('p');
  line.className = `message ${kind}`;
  line.textContent = text;
  messages.replaceChildren(line);
  float();
}

// This page's address, without the name of what was shown once. After a form that was refused the browser has
// the form's address, where nothing can be got: the page says which one is its own.
export function address() {
  const here = new URL(document.body.dataset.here, location.href);
  const url = here.pathname === location.pathname ? new URL(location.href) : here;
  url.searchParams.delete('m');
  return url;
}
