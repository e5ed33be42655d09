// Makes a part of this page like the same part of a newer one. What is equal is not touched: nothing flickers,
// and the focus, what is typed, and what is open stay.
'use strict';

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id : '');

function sameKind(old, fresh) {
  return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // What somebody has opened, stays open.
    if (!fresh.hasAttribute(name) && !(name === 'open' && old.localName === 'details')) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

// What the registry says that a field holds; what is typed is another matter.
function saidValue(field) {
  if (field.localName === 'input') return field.getAttribute('value') ?? '';
  if (field.localName === 'select') return field.querySelector('[selected]')?.value ?? '';
  return '';
}

function morphField(old, fresh, before) {
  const after = saidValue(fresh);
  if (before !== after) old.value = after;
}

function morphNode(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  const before = saidValue(old);
  if (old.hasAttribute('data-host') && stateOf(old) !== stateOf(fresh)) highlight(old);
  morphAttributes(old, fresh);
  morphChildren(old, fresh);
  morphField(old, fresh, before);
}

// The node of the old page that becomes `fresh`: the one with the same id, or the one that is there if it is alike.
function partner(parent, place, fresh, byKey) {
  const key = keyOf(fresh);
  if (key) return byKey.get(key);
  return place && sameKind(place, fresh) ? place : undefined;
}

function morphChildren(old, fresh) {
  const byKey = new Map([...old.childNodes].filter(keyOf).map((node) => [node.id, node]));
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = partner(old, place, wanted, byKey);
    if (!found || !sameKind(found, wanted)) {
      const added = document.importNode(wanted, true);
      old.insertBefore(added, place);
      if (added.nodeType === Node.ELEMENT_NODE && added.hasAttribute('data-host')) highlight(added);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else moveBefore(old, found, place);
    morphNode(found, wanted);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// A node that is moved loses the focus; it gets it back.
function moveBefore(parent, node, place) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(node, place);
  if (focused) focused.focus({ preventScroll: true });
}

const stateOf = (row) => row.getAttribute('data-state');

// Fades by itself; a newer page has no such class, so it goes with the next news.
function highlight(row) {
  requestAnimationFrame(() => row.classList.add('news'));
}

export const morph = morphNode;

export function morphParts(page, selector = '[data-live]') {
  for (const part of document.querySelectorAll(selector)) {
    const fresh = part.id && page.getElementById(part.id);
    if (fresh) morph(part, fresh);
  }
}
