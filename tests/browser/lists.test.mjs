// Thousands of candidates and of ranked rows: what is in the document, by wheel, keyboard and filter, for a screen reader, and how long it takes.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';
import { text } from '../../www/i18n.js';
import { host, idle, out } from './harness.mjs';

const tests = host({ gpu: false });
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const COUNT = 5000;

/** Rows in the document, and whether they fill what is in sight of the list. @param {import('playwright-core').Page} page @param {'reports' | 'result'} which */
const seen = (page, which) => page.evaluate((name) => {
  const scroller = document.querySelector(name === 'reports' ? '#report-list' : '#result-table');
  const rows = [...document.querySelectorAll(name === 'reports' ? '#reports > li' : '#result-rows > tr')];
  const [attribute, first] = name === 'reports' ? ['aria-posinset', 1] : ['aria-rowindex', 2];
  const places = rows.map((row) => Number(row.getAttribute(attribute)) - first);
  const { top, bottom } = scroller.getBoundingClientRect();
  const inSight = places.filter((_, i) => rows[i].getBoundingClientRect().bottom > top && rows[i].getBoundingClientRect().top < bottom);
  const covers = rows.length > 0 && rows[0].getBoundingClientRect().top <= Math.max(top, scroller.firstElementChild?.getBoundingClientRect().top ?? 0)
    && rows.at(-1).getBoundingClientRect().bottom >= bottom - 1;
  return { count: rows.length, first: places[0], last: places.at(-1), inSight: [inSight[0], inSight.at(-1)], inOrder: places.every((place, i) => place === places[0] + i), covers };
}, which);

const frames = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))));

const scroll = async (page, selector, share) => {
  await page.evaluate(([to, part]) => {
    const scroller = document.querySelector(to);
    scroller.scrollTop = part * (scroller.scrollHeight - scroller.clientHeight);
  }, [selector, share]);
  await frames(page);
};

async function withReports() {
  const made = await tests.newAppPage();
  const { page } = made;
  const lines = Array.from({ length: COUNT }, (_, i) => JSON.stringify({ id: `r${i}`, text: `Nodule of ${i} mm in the right upper lobe. ${'Clear lungs elsewhere. '.repeat(i % 7)}` }));
  await page.setInputFiles('#reports-file', { name: 'x.jsonl', mimeType: 'text/plain', buffer: Buffer.from(lines.join('\n')) });
  await page.waitForSelector('#reports > li');
  await idle(page);
  return made;
}

/** Shows a ranking of all candidates, as `rank` gives it; milliseconds until it was painted. @param {import('playwright-core').Page} page */
const showRanking = (page) => page.evaluate(async () => {
  const [{ changed, state }, { candidates }] = await Promise.all([import('/app.js'), import('/candidates.js')]);
  const { rows } = candidates;
  const order = rows.map((_, i) => (i * 7919) % rows.length);
  const cosine = (place) => 0.9 - place / rows.length;
  const ranked = order.map((index, place) => ({
    index, id: rows[index].id, cosine: cosine(place), rank: place + 1, tieGroup: place, marginToNext: 1 / rows.length, share: 1 / rows.length,
  }));
  const started = performance.now();
  state.result = { ranking: { rows: ranked, tieTolerance: 0.0001, provenance: { adapter: 'CPU' } }, rows, timingsMs: { total: 1 }, image: {}, set: {} };
  changed('result');
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - started;
});

test('candidates: few are in the document, wherever the list is; each says where it is', async () => {
  const { page, finish } = await withReports();
  const start = await seen(page, 'reports');
  assert.ok(start.count < 60 && start.first === 0 && start.inOrder && start.covers, JSON.stringify(start));
  assert.equal(await page.getAttribute('#reports > li', 'aria-setsize'), String(COUNT));
  const height = await page.evaluate(() => document.querySelector('#report-list').scrollHeight);
  for (const share of [0.5, 0.1, 0.9]) {
    await scroll(page, '#report-list', share);
    const found = await seen(page, 'reports');
    assert.ok(found.count < 60 && found.inOrder && found.covers, `${share}: ${JSON.stringify(found)}`);
    assert.ok(Math.abs(found.inSight[0] / COUNT - share) < 0.05, `${share}: ${JSON.stringify(found)}`);
  }
  await scroll(page, '#report-list', 1);
  await scroll(page, '#report-list', 1);
  assert.equal((await seen(page, 'reports')).inSight[1], COUNT - 1, 'the last one');
  const grown = await page.evaluate(() => document.querySelector('#report-list').scrollHeight) / height;
  assert.ok(grown > 0.8 && grown < 1.25, `the length of the list was foreseen: ${grown}`);
  await page.fill('#report-filter', 'r47');
  const wanted = 1 + 10 + 100;
  await page.waitForFunction((n) => document.querySelectorAll('#reports > li').length === n, wanted);
  assert.equal(await page.textContent('#report-shown'), text('rows_shown', { n: wanted, total: '5,000' }));
  assert.equal(await page.getAttribute('#reports > li', 'aria-setsize'), String(wanted));
  assert.equal(await page.evaluate(() => document.querySelector('#reports').style.paddingBottom), '', 'a short list is whole');
  await page.fill('#report-filter', '');
  assert.ok((await seen(page, 'reports')).count < 60);
  assert.equal(await page.textContent('#report-shown'), '');
  await finish();
});

test('scrolling by wheel: rows follow each other without a gap or a jump', async () => {
  const { page, finish } = await withReports();
  await page.locator('#report-list').scrollIntoViewIfNeeded();
  await scroll(page, '#report-list', 0.3);
  await page.hover('#report-list');
  /** Where rows in sight are, by place. */
  const tops = () => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('#reports > li')].map((row) => [row.getAttribute('aria-posinset'), row.getBoundingClientRect().top])));
  const scrollTop = () => page.evaluate(() => document.querySelector('#report-list').scrollTop);
  let [before, all] = [await tops(), 0];
  for (let turn = 0; turn < 30; turn++) {
    const by = turn < 20 ? 90 : -90;
    const start = await scrollTop();
    await page.mouse.wheel(0, by);
    await page.waitForFunction((from) => document.querySelector('#report-list').scrollTop !== from, start);
    await frames(page);
    const found = await seen(page, 'reports');
    assert.ok(found.covers && found.inOrder && found.count < 60, JSON.stringify(found));
    const now = await tops();
    const moved = Object.keys(now).filter((place) => place in before).map((place) => before[place] - now[place]);
    const [least, most] = [Math.min(...moved), Math.max(...moved)];
    assert.ok(moved.length > 5 && most - least < 1.5 && Math.sign(least) === Math.sign(by) && Math.abs(most) < 92, `${turn}: ${moved}`);
    all += most;
    before = now;
  }
  assert.ok(Math.abs(all - 10 * 90) < 30, `as far as the wheel says: ${all}`);
  await finish();
});

test('another width of the page: the same rows stay in sight', async () => {
  const { page, finish } = await withReports();
  await scroll(page, '#report-list', 0.4);
  const { inSight: [first] } = await seen(page, 'reports');
  for (const width of [500, 1600, 700]) {
    await page.setViewportSize({ width, height: 800 });
    await frames(page);
    await frames(page);
    const found = await seen(page, 'reports');
    assert.ok(found.covers && found.inOrder && found.count < 60, `${width}: ${JSON.stringify(found)}`);
    assert.ok(Math.abs(found.inSight[0] - first) <= 1, `${width}: ${first} ${JSON.stringify(found)}`);
  }
  await page.click('#lang-zh');
  await frames(page);
  assert.ok((await seen(page, 'reports')).covers, 'drawn again where it is');
  await finish();
});

test('by keyboard: from row to row as far as one likes, also after the row was scrolled away', async () => {
  const { page, finish } = await withReports();
  const focused = () => page.evaluate(() => Number(document.activeElement.closest('#reports > li')?.getAttribute('aria-posinset')));
  await page.focus('#report-list');
  for (let i = 0; i < 90; i++) await page.keyboard.press(i % 2 ? 'j' : 'ArrowDown');
  assert.equal(await focused(), 90);
  const inSight = () => page.evaluate(() => {
    const [row, list] = [document.activeElement.getBoundingClientRect(), document.querySelector('#report-list').getBoundingClientRect()];
    return row.top >= list.top - 1 && row.bottom <= list.bottom + 1;
  });
  assert.ok(await inSight());
  await page.keyboard.press('x');
  await scroll(page, '#report-list', 0.8);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'report-list', 'the focus is not lost');
  await page.keyboard.press('k');
  await frames(page);
  assert.equal(await focused(), 89);
  assert.ok(await inSight());
  await page.keyboard.press('j');
  assert.equal(await page.evaluate(() => document.activeElement.querySelector('[data-review]').getAttribute('aria-pressed')), 'true', 'the mark is kept');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'report-filter');
  await finish();
});

test('5,000 ranked rows: shown at once, counted for a screen reader, filtered; axe finds nothing', async () => {
  const { page, finish } = await withReports();
  const times = [];
  for (let i = 0; i < 5; i++) times.push(await showRanking(page));
  const middle = times.toSorted((a, b) => a - b)[2];
  console.log(`5,000 ranked rows are painted after ${times.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  assert.ok(middle < 500, `${middle} ms`);
  assert.equal(await page.getAttribute('#result-grid', 'aria-rowcount'), String(COUNT + 1));
  const start = await seen(page, 'result');
  assert.ok(start.count < 60 && start.first === 0, JSON.stringify(start));
  await page.locator('#result-table').scrollIntoViewIfNeeded();
  for (const share of [0.5, 1]) {
    await scroll(page, '#result-table', share);
    await scroll(page, '#result-table', share);
    const found = await seen(page, 'result');
    assert.ok(found.count < 60 && found.inOrder && found.covers, JSON.stringify(found));
    const head = await page.evaluate(() => {
      const [row, table] = ['#result-grid thead', '#result-table'].map((name) => document.querySelector(name).getBoundingClientRect());
      return row.top - table.top;
    });
    assert.ok(Math.abs(head) < 3, `the headings stay in sight: ${head}`);
  }
  assert.equal((await seen(page, 'result')).inSight[1], COUNT - 1);
  assert.equal(await page.locator('#result-rows > tr').last().locator('td').first().textContent(), String(COUNT));
  await page.screenshot({ path: join(out, 'lists-result-en.png') });
  await page.evaluate(axe);
  const violations = await page.evaluate(`axe.run(document).then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ target }) => target).join(' ')))`);
  assert.deepEqual(violations, []);
  await page.fill('#result-filter', 'r4711');
  assert.deepEqual(await page.locator('#result-rows strong').allTextContents(), ['r4711']);
  assert.equal(await page.getAttribute('#result-grid', 'aria-rowcount'), '2');
  await page.click('#result-rows [data-review]');
  await page.fill('#result-filter', '');
  assert.ok((await seen(page, 'result')).count < 60);
  await page.focus('#result-table');
  for (let i = 0; i < 40; i++) await page.keyboard.press('j');
  const focused = await page.evaluate(() => ({
    place: Number(document.activeElement.getAttribute('aria-rowindex')) - 2, top: document.activeElement.getBoundingClientRect().top,
    head: document.querySelector('#result-grid thead').getBoundingClientRect().bottom,
  }));
  assert.equal(focused.place, 39);
  for (let i = 0; i < 30; i++) await page.keyboard.press('k');
  const above = await page.evaluate(() => [document.activeElement.getBoundingClientRect().top, document.querySelector('#result-grid thead').getBoundingClientRect().bottom]);
  assert.ok(above[0] >= above[1] - 1, `the headings do not hide the row that has the focus: ${above}`);
  await finish();
});
