// Forms that change a host where it stands, questions in a dialog, the filter, and what is copied.
'use strict';

import { address, get, getNews, post, say, show, showMessages } from './page.js';

const TYPED_MS = 200; // after the last key, a filter is applied

const dialog = document.getElementById('dialog');

const busy = new WeakSet();

let filterTimer = 0;
let filterCount = 0;

// Changes

async function submitInPlace(form) {
  if (busy.has(form)) return;
  busy.add(form);
  const row = form.closest('[data-host]')?.id;
  const found = await post(form);
  busy.delete(form);
  taken(found, form);
  if (row && document.activeElement === document.body) focusRow(row);
}

// What had the focus is not there any more.
function focusRow(id) {
  const row = document.getElementById(id);
  row?.querySelector('.actions button, .actions a')?.focus({ preventScroll: true });
}

function taken(found, form) {
  if (found.fault === 'away') return say('The registry does not answer. Nothing is known of what became of this.');
  if (found.fault === 'signed-out') return location.assign('/sign-in');
  if (found.fault) return refused(found.page);
  if (dialog.contains(form)) dialog.close();
  show(found.page);
  return showMessages(found.page);
}

function refused(page) {
  if (page.querySelector('form.confirm')) showQuestion(page);
  else say(page.querySelector('main .message')?.textContent || 'The registry refuses this.');
}

// Questions

let opener = null;
let openerRow = '';

async function openQuestion(link) {
  const found = await get(link.href);
  if (!found.page) return location.assign(link.href);
  opener = link.closest('.menu')?.querySelector('summary') || link;
  openerRow = link.closest('[data-host]')?.id;
  link.closest('details.menu')?.removeAttribute('open');
  return found.fault && !found.page.querySelector('form.confirm') ? refused(found.page) : showQuestion(found.page);
}

function showQuestion(page) {
  const form = page.querySelector('form.confirm');
  dialog.replaceChildren(document.importNode(form, true));
  dialog.setAttribute('aria-labelledby', 'dialog-title');
  if (!dialog.open) dialog.showModal();
  // Enter alone shall not do what cannot be taken back.
  dialog.querySelector('[aria-invalid], .field input, button:not(.danger), [data-close]').focus();
}

const staysHere = (form) => new URL(form.dataset.back, location.href).pathname === location.pathname;

function closed() {
  dialog.replaceChildren();
  if (opener?.isConnected) opener.focus({ preventScroll: true });
  else if (openerRow) focusRow(openerRow);
  opener = null;
}

// The filter, and the heads of columns

async function go(url) {
  const count = ++filterCount;
  const found = await getNews(url);
  if (count !== filterCount) return; // there is a later one
  if (found.fault) { location.assign(url); return; }
  history.replaceState(null, '', url);
  show(found.page);
}

function filterUrl(form) {
  const url = new URL(form.action);
  const values = [...new FormData(form)].filter(([name, value]) => value && !(name === 'sort' && value === 'name'));
  url.search = new URLSearchParams(values).toString();
  url.hash = '';
  return url;
}

function typed(form) {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(() => go(filterUrl(form)), TYPED_MS);
}

// Copying

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = 'Selected';
  }
}

// What people do

function onSubmit(event) {
  const form = event.target;
  if (form.matches('[data-filter]')) {
    event.preventDefault();
    clearTimeout(filterTimer);
    go(filterUrl(form));
  } else if (form.matches('[data-inplace]') || (dialog.contains(form) && isHostAction(form))) {
    event.preventDefault();
    submitInPlace(form);
  } else {
    once(form);
  }
}

// A page is left by this one: what it does is done once.
function once(form) {
  setTimeout(() => { for (const button of form.querySelectorAll('button')) button.disabled = true; });
}

// What is done to a host, and shows on this very page.
function isHostAction(form) {
  const path = new URL(form.action).pathname;
  const removesPage = path === `${location.pathname}/forget`;
  return path.startsWith('/hosts/') && staysHere(form) && !removesPage;
}

const isPlain = (event) => event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;

function onClick(event) {
  const link = event.target.closest('a[data-dialog], a[data-sort], [data-close], button[data-copy]');
  if (!link) return undefined;
  if (!isPlain(event)) return undefined;
  if (link.matches('[data-copy]')) return copy(link);
  if (link.matches('[data-close]') && !dialog.contains(link)) return undefined;
  event.preventDefault();
  if (link.matches('[data-close]')) return dialog.close();
  if (link.matches('[data-sort]')) return go(withoutHash(link.href));
  return openQuestion(link);
}

function withoutHash(href) {
  const url = new URL(href);
  url.hash = '';
  return url;
}

function onInput(event) {
  const form = event.target.closest('[data-filter]');
  if (form) typed(form);
}

function tidy() {
  const url = address();
  if (url.href !== location.href) history.replaceState(null, '', url);
}

export function startForms() {
  document.addEventListener('submit', onSubmit);
  document.addEventListener('click', onClick);
  document.addEventListener('input', onInput);
  dialog.addEventListener('close', closed);
  window.addEventListener('pageshow', () => {
    for (const button of document.querySelectorAll('button[disabled]')) button.disabled = false;
  });
  tidy();
}
