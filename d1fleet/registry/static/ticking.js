// Times since the last contact go on between two pieces of news.
'use strict';

const STEPS = [[86400, 'day', 'days'], [3600, 'h', 'h'], [60, 'min', 'min']];

let offset = 0; // the registry's clock, in seconds, less ours since this page was opened

const own = () => performance.now() / 1000;

// `panel_words.ago` says the same.
export function ago(seconds) {
  for (const [size, one, many] of STEPS) {
    if (seconds >= size) {
      const count = Math.floor(seconds / size);
      return `${count} ${count === 1 ? one : many} ago`;
    }
  }
  return `${Math.max(0, Math.floor(seconds))} s ago`;
}

export function setClock(page) {
  offset = Number(page.documentElement.dataset.now) - own();
}

export function tick(within = document) {
  const now = own() + offset;
  for (const each of within.querySelectorAll('time[data-at]')) {
    const text = ago(now - Number(each.dataset.at));
    if (each.textContent !== text) each.textContent = text;
  }
}

export function startTicking() {
  setClock(document);
  setInterval(() => { if (!document.hidden) tick(); }, 1000);
}
