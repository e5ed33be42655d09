// Makes a part of this page like the same part of a newer one. What is equal is not touched: nothing flickers,
// and the focus, what is typed, and what is open stay.
'use strict';

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id : '');

function sameKind(old, fresh) {
  return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);
}

// What somebody has opened stays open, and where it is shown is this page's own affair.
const isOwn = (element, name) => name === 'style' || (name === 'open' && element.localName === 'details');

function morphAttributes(old, fresh) {
  const isNews = old.classList.contains('news');
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !isOwn(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (isNews) old.classList.add('news');
}

// A field holds what somebody has typed, until the registry says something else of it.
function morphField(field) {
  if (field.localName === 'input') field.value = field.getAttribute('value') ?? '';
  if (field.localName === 'select') field.value = field.querySelector('[selected]')?.value ?? '';
}

function morphNode(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute('data-host') && stateOf(old) !== stateOf(fresh)) highlight(old);
  morphAttributes(old, fresh);
  morphChildren(old, fresh);
  morphField(old);
}

// The node of the old page that becomes `fresh`: the one with the same id, or the one at that place if it is alike.
function partner(place, fresh, byKey) {
  const key = keyOf(fresh);
  if (key) return byKey.get(key);
  return place && sameKind(place, fresh) ? place : undefined;
}

const byId = (nodes) => new Map([...nodes].filter(keyOf).map((node) => [node.id, node]));

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function added(parent, wanted, place) {
  const node = parent.insertBefore(document.importNode(wanted, true), place);
  if (node.nodeType === Node.ELEMENT_NODE && node.hasAttribute('data-host')) highlight(node);
}

// Is a node not there in the newer page, or space before one that is?
function goes(node, found, kept) {
  if (keyOf(node)) return !kept.has(node.id);
  return Boolean(found && keyOf(found)) && node.nodeType === Node.TEXT_NODE && !node.nodeValue.trim();
}

function morphChildren(old, fresh) {
  const there = byId(old.childNodes);
  const kept = byId(fresh.childNodes);
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    let found = partner(place, wanted, there);
    // What goes, goes first: all behind it need not be moved.
    while (place && place !== found && goes(place, found, kept)) {
      place = removed(place);
      found = partner(place, wanted, there);
    }
    if (!found || !sameKind(found, wanted)) {
      added(old, wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else moveBefore(old, found, place);
    morphNode(found, wanted);
  }
  while (place) place = removed(place);
}

// A node that is moved loses the focus; it gets it back.
function moveBefore(parent, node, place) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(node, place);
  if (focused) focused.focus({ preventScroll: true });
}

const stateOf = (row) => row.getAttribute('data-state');

const still = matchMedia('(prefers-reduced-motion: reduce)');

// A row that is new, or has another state, is seen to be.
function highlight(row) {
  if (still.matches) return;
  row.classList.add('news');
  row.addEventListener('animationend', () => row.classList.remove('news'), { once: true });
}

export const morph = morphNode;

export function morphParts(page, selector = '[data-live]') {
  for (const part of document.querySelectorAll(selector)) {
    const fresh = part.id && page.getElementById(part.id);
    if (fresh) morph(part, fresh);
  }
}
