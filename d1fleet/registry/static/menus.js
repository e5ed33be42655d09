// Menus of what else can be done with a host: below their buttons, whatever scrolls around them.
'use strict';

const GAP_PX = 4;

const openMenus = () => document.querySelectorAll('details.menu[open]');

function place(menu) {
  const list = menu.querySelector('ul');
  const button = menu.querySelector('summary').getBoundingClientRect();
  const { width, height } = list.getBoundingClientRect();
  const below = button.bottom + GAP_PX;
  const fits = below + height <= innerHeight || button.top < height;
  list.style.top = `${fits ? below : button.top - GAP_PX - height}px`;
  list.style.left = `${Math.max(GAP_PX, button.right - width)}px`;
}

function placeAll() {
  for (const menu of openMenus()) place(menu);
}

function onToggle(event) {
  if (event.target.matches('details.menu[open]')) place(event.target);
}

function closeOthers(event) {
  for (const menu of openMenus()) {
    if (!menu.contains(event.target)) menu.removeAttribute('open');
  }
}

function onKey(event) {
  if (event.key !== 'Escape') return;
  const menu = document.activeElement?.closest('details.menu[open]');
  if (!menu) return;
  menu.removeAttribute('open');
  menu.querySelector('summary').focus();
}

export function startMenus() {
  document.addEventListener('toggle', onToggle, true);
  document.addEventListener('click', closeOthers);
  document.addEventListener('focusin', closeOthers);
  document.addEventListener('keydown', onKey);
  document.addEventListener('scroll', placeAll, { capture: true, passive: true });
  window.addEventListener('resize', placeAll);
}
