// News from the registry: what has changed is fetched and shown.
'use strict';

import { address, getNews, show } from './page.js';

const EVENTS = '/api/v1/admin/events';
const LEAST_MS = 1000; // between two looks
const LOG_MS = 5000; // the audit log comes from the database
const SHARE = 20; // of the time: a registry that takes long to answer is asked less often
const SILENCE_MS = 3000; // a connection that is back by then was not worth a word
const AGAIN_MS = 5000;

const watch = document.body.dataset;
const band = document.getElementById('lost');

let source = null;
let over = false; // there is nothing to look at any more
let wanted = false;
let looking = false;
let notBefore = 0;
let timer = 0;
let lostTimer = 0;
let shownAt = new Date();

function isAbout(host) {
  if (watch.watch === 'all' || watch.watch === 'log') return true;
  if (watch.watch === 'host') return host.name === watch.watchName;
  return host.projects.includes(watch.watchName) || document.getElementById(`host-${host.name}`) !== null;
}

function concerns(news) {
  if (news.type !== 'hosts') return true;
  return news.hosts.some(isAbout) || (news.removed || []).length > 0;
}

function heard(event) {
  if (concerns(JSON.parse(event.data))) look();
}

// Look soon: at once if the last look is long enough ago.
function look() {
  wanted = true;
  if (over || looking || timer || document.hidden) return;
  timer = setTimeout(lookNow, Math.max(0, notBefore - performance.now()));
}

async function lookNow() {
  timer = 0;
  wanted = false;
  looking = true;
  const began = performance.now();
  const where = address().href;
  const found = await getNews(where);
  const took = performance.now() - began;
  notBefore = performance.now() + Math.max(watch.watch === 'log' ? LOG_MS : LEAST_MS, took * SHARE);
  looking = false;
  if (where !== address().href) wanted = true; // another filter was chosen meanwhile
  else if (found.fault) failed(found);
  else succeeded(found.page);
  if (wanted) look();
}

function succeeded(page) {
  shownAt = new Date();
  show(page);
  if (source && source.readyState === EventSource.OPEN) hush();
}

function failed(found) {
  if (found.fault === 'signed-out') signedOut();
  else if (found.status === 404) gone();
  else {
    lost();
    wanted = true;
    notBefore = performance.now() + AGAIN_MS;
  }
}

function tell(text, link, name) {
  if (band.dataset.said === text) return;
  band.dataset.said = text;
  band.replaceChildren(text);
  if (link) {
    const anchor = document.createElement('a');
    anchor.href = link;
    anchor.textContent = name;
    band.append(' ', anchor);
  }
  band.hidden = false;
}

function lost() {
  tell(`No connection to the registry. What you see is of ${shownAt.toLocaleTimeString()}. Trying again.`);
}

function hush() {
  band.hidden = true;
  band.dataset.said = '';
}

function signedOut() {
  end('You are signed out.', `/sign-in?next=${encodeURIComponent(location.pathname)}`, 'Sign in again');
}

function gone() {
  end('What this page shows is not there any more.', '/', 'Overview');
}

function end(text, link, name) {
  over = true;
  stop();
  tell(text, link, name);
}

function stop() {
  mark('off');
  clearTimeout(lostTimer);
  lostTimer = 0;
  if (source) source.close();
  source = null;
}

// For those who look at the page from outside, such as tests.
const mark = (state) => { document.documentElement.dataset.live = state; };

function opened() {
  mark('on');
  clearTimeout(lostTimer);
  lostTimer = 0;
  look();
}

function broken() {
  mark('off');
  if (!lostTimer) lostTimer = setTimeout(lost, SILENCE_MS);
  // A browser tries again by itself, unless it got an answer that is none: signed out, or too many look on.
  if (source.readyState !== EventSource.CLOSED) return;
  source = null;
  look();
  setTimeout(connect, AGAIN_MS);
}

function connect() {
  if (source || over || document.hidden) return;
  source = new EventSource(EVENTS);
  source.onmessage = heard;
  source.onopen = opened;
  source.onerror = broken;
}

// A browser has few connections to one server, and pages that nobody sees shall not take them all.
function seenOrNot() {
  if (document.hidden) {
    stop();
  } else if (!over) {
    connect();
    look();
  }
}

export function startLive() {
  if (!watch.watch) return;
  document.addEventListener('visibilitychange', seenOrNot);
  window.addEventListener('pagehide', stop);
  window.addEventListener('pageshow', (event) => { if (event.persisted) seenOrNot(); });
  connect();
}
