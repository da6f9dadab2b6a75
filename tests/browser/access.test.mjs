// Whoever uses the page: axe-core in every state, two languages, two themes; keyboard only; narrow and wide screens.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES, text } from '../../www/i18n.js';
import { host, idle, out, sampleNifti, searchOwnStore, SLOW_MS, useSample, www } from './harness.mjs';

const tests = host({ gpu: false });
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** WCAG 2.2 AA and below, and good practice; the rule of 2.5.8 has to be asked for. @param {import('playwright-core').Page} page @param {string} state */
async function clean(page, state) {
  const violations = await page.evaluate(`(async () => {
    const { violations, ...others } = await axe.run(document, { rules: { 'target-size': { enabled: true } } });
    const ran = [violations, others.passes, others.incomplete, others.inapplicable].flat().some(({ id }) => id === 'target-size');
    return [...(ran ? [] : [{ id: 'target-size was not looked at', nodes: [] }]), ...violations].map(({ id, nodes }) => id + ': ' + nodes.map(({ target, failureSummary }) => target + ' ' + failureSummary).join('; '));
  })()`);
  assert.deepEqual(violations, [], state);
}

for (const [locale, theme] of [['en-US', 'dark'], ['zh-CN', 'light']]) {
  test(`axe finds nothing in any state (${locale}, ${theme})`, { timeout: 3 * SLOW_MS }, async () => {
    const { page, finish } = await tests.newPage({ locale, path: '/', firstRun: true });
    const shot = (name) => page.screenshot({ path: join(out, `access-${name}-${locale.slice(0, 2)}-${theme}.png`), fullPage: true });
    await page.evaluate(axe);
    await page.waitForSelector('#first-run[open]');
    await clean(page, 'first run');
    await page.click('#first-run button');
    await page.selectOption('#theme', theme);
    await idle(page);
    await clean(page, 'empty');
    await shot('empty');

    await useSample(page);
    await page.fill('#paste', 'Patient Name: Jane Roe, MRN 12345678. Clear lungs.');
    await page.click('#add-pasted');
    await page.click('#reports .hints summary');
    await page.click('.plane .foot button');
    await clean(page, 'one plane, hints of a report');
    await page.click('.plane .foot button');
    await page.check('input[name="backend"][value="cpu"]');
    let go;
    const held = new Promise((resolve) => { go = resolve; });
    await page.route('**/model/weights*', (route) => held.then(() => route.continue()));
    await page.click('#rank');
    await page.waitForSelector('#cancel:not([hidden])');
    await clean(page, 'work in progress');
    go();
    await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
    await idle(page);
    const [report] = await Promise.all([page.waitForEvent('download'), page.click('#export-html')]);
    const exported = await tests.newPage({ colorScheme: theme });
    await exported.page.setContent(await readFile(await report.path(), 'utf8'));
    await exported.page.evaluate(axe);
    await exported.page.click('summary');
    await clean(exported.page, 'exported page');
    await exported.finish();
    for (const row of [1, 2]) await page.click(`#result-rows tr:nth-child(${row}) [data-compare]`);
    await page.click('#zero-shot > summary');
    await page.click('#zero-shot-run');
    await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
    await idle(page);
    await page.click('#quiz > summary');
    await page.click('#quiz-list');
    await page.check('input[name="quiz-option"]');
    await clean(page, 'quiz before the answer');
    await page.click('#quiz-reveal');
    await page.waitForSelector('#quiz-totals:not([hidden])', { timeout: SLOW_MS });
    await idle(page);
    await page.click('#retrieval > summary');
    await page.click('#compare-all');
    await page.waitForSelector('#matrix-rows tr', { timeout: SLOW_MS });
    await idle(page);
    await page.click('#evidence > summary');
    await page.selectOption('#evidence-variant', 'share');
    await page.click('#evidence-show');
    await page.waitForSelector('#legend:not([hidden])', { timeout: SLOW_MS });
    await idle(page);
    await page.check('#map-outlines');
    await page.fill('#occlude-count', '1');
    await page.click('#occlude');
    await page.waitForSelector('#evidence-rows [data-hidden]:not(:empty)', { timeout: SLOW_MS });
    await idle(page);
    await searchOwnStore(page);
    await page.focus('#result-table');
    for (const key of ['j', 'x', 'Enter']) await page.keyboard.press(key);
    await page.selectOption('#slab', '10');
    await page.locator('.view').first().focus();
    for (const key of ['r', 'ArrowDown', 'r']) await page.keyboard.press(key);
    for (const id of ['model', 'network']) await page.click(`#${id} > summary`);
    await page.click('#model-box');
    await page.waitForSelector('.box:not([hidden])');
    await idle(page);
    await clean(page, 'everything open');
    await shot('all');
    await page.click('#model-grid');
    await page.waitForSelector('#model-grid[aria-pressed="true"]');
    await clean(page, 'what the model sees');
    await page.setViewportSize({ width: 360, height: 740 });
    await clean(page, '360 pixels');
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing to scroll sideways');
    await shot('narrow');
    await page.setViewportSize({ width: 1440, height: 1000 });

    await page.click('#help-open');
    await clean(page, 'help');
    await page.keyboard.press('Escape');
    await page.click('#reports .tools button');
    await clean(page, 'editor');
    await page.keyboard.press('Escape');
    await page.setInputFiles('#reports-file', { name: 'x.csv', mimeType: 'text/csv', buffer: Buffer.from('a,b\n1,2\n') });
    await page.waitForSelector('#columns[open]');
    await clean(page, 'columns');
    await page.keyboard.press('Escape');
    await idle(page);
    await page.click('#clear-all');
    await clean(page, 'clear');
    await page.keyboard.press('Escape');
    const nifti = await sampleNifti();
    for (let at = 352; at < nifti.length; at += 2) nifti.writeInt16LE(nifti.readInt16LE(at) + 1024, at);
    await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer: nifti });
    await page.waitForSelector('#histogram svg');
    await idle(page);
    await clean(page, 'histogram');
    await page.locator('#volume').screenshot({ path: join(out, `access-histogram-${locale.slice(0, 2)}-${theme}.png`) });
    await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer: Buffer.from('nothing') });
    await page.waitForSelector('#error:not([hidden])');
    await clean(page, 'error');
    await page.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError')); });
    await page.click('#diagnostics');
    await page.waitForSelector('#diagnostics-text:not([hidden])');
    assert.deepEqual(JSON.parse(await page.inputValue('#diagnostics-text')).page, { commit: 'unknown', build_sha256: 'unknown' });
    assert.equal(await page.evaluate(() => document.activeElement.id && getSelection().toString() === document.activeElement.value), true, 'marked, to be copied');
    await clean(page, 'diagnostics to be copied by hand');
    await finish();
  });

  test(`axe finds nothing where a file asks, and beside the page (${locale}, ${theme})`, { timeout: SLOW_MS }, async () => {
    const { page, finish } = await tests.newAppPage({ locale });
    await page.evaluate(axe);
    await page.selectOption('#theme', theme);
    const open = async (change) => {
      const buffer = await sampleNifti();
      change(buffer);
      await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer });
      await idle(page);
    };
    for (const width of [1440, 360]) {
      await page.setViewportSize({ width, height: 1000 });
      await open((nifti) => {
        nifti.writeInt16LE(4, 40);
        nifti.writeInt16LE(3, 48);
      });
      await page.waitForSelector('#frame-form:not([hidden])');
      await clean(page, `a choice of frames, ${width}`);
      await open((nifti) => {
        nifti.writeInt16LE(0, 254);
        nifti.writeFloatLE(0, 80);
      });
      await page.waitForSelector('[data-cure]');
      await clean(page, `an error with a cure, ${width}`);
      await open((nifti) => {
        nifti.writeInt32LE(0, 252); // qform_code, sform_code
        nifti.writeInt16LE(-5000, 352);
        nifti.write('PatientName: Jane Roe', 148, 'latin1');
      });
      await page.waitForSelector('#orientation-banner:not([hidden])');
      await page.waitForSelector('[data-correct="apply_scaling"]');
      await page.waitForSelector('#histogram svg');
      await page.click('#reveal');
      await page.waitForSelector('#reveal[aria-expanded="true"]');
      await clean(page, `corrections and identifiers, ${width}`);
    }
    await finish();

    const stored = await tests.newPage({ locale, colorScheme: theme, path: '/storage.html' });
    await stored.page.waitForSelector('#stored li, #stored-state:not(:empty)');
    await stored.page.evaluate(axe);
    await clean(stored.page, 'stored data');
    await stored.finish();
  });
}

test('the journey by keyboard alone', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPage({ path: '/', firstRun: true });
  await page.waitForSelector('#first-run[open]');
  /** Presses Tab until the element has the focus, and looks whether one can see it there. @param {string} selector */
  const tabTo = async (selector) => {
    for (let i = 0; i < 120; i++) {
      await page.keyboard.press('Tab');
      if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) {
        const seen = await page.evaluate(() => {
          const element = document.activeElement;
          const { left, top, width, height } = element.getBoundingClientRect();
          const at = document.elementFromPoint(left + width / 2, top + Math.min(height / 2, 20));
          return { outline: getComputedStyle(element).outlineStyle, unobscured: element === at || element.contains(at) || (at?.contains(element) ?? false) };
        });
        assert.deepEqual(seen, { outline: seen.outline === 'none' ? 'visible' : seen.outline, unobscured: true }, selector);
        return;
      }
    }
    assert.fail(`${selector} is not reached`);
  };
  await page.keyboard.press('Enter');
  await page.waitForSelector('#first-run', { state: 'hidden' });
  await idle(page);
  await tabTo('#use-sample');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#reports li');
  await idle(page);
  await tabTo('.view');
  await page.keyboard.press('End');
  await page.waitForFunction(() => /slice 30 of/.test(document.querySelector('figcaption').textContent));
  await page.keyboard.press('3');
  await tabTo('input[name="backend"]');
  await page.keyboard.press('ArrowDown');
  await tabTo('#rank');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  await idle(page);
  await tabTo('#result-rows [data-compare]');
  await page.keyboard.press('Space');
  await tabTo('#result-rows tr:nth-child(2) [data-compare]');
  await page.keyboard.press('Space');
  await page.waitForSelector('#comparison:not([hidden])');
  await tabTo('#export');
  await Promise.all([page.waitForEvent('download'), page.keyboard.press('Enter')]);
  await tabTo('#zero-shot > summary');
  await page.keyboard.press('Enter');
  await tabTo('#zero-shot-run');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  await finish();
});

test('360 pixels to 4K: nothing to scroll sideways, targets of 24 pixels', { timeout: SLOW_MS }, async () => {
  for (const [width, height] of [[360, 740], [1024, 768], [3840, 2160]]) {
    const { page, finish } = await tests.newPage({ path: '/', viewport: { width, height } });
    await idle(page);
    await useSample(page);
    await page.check('input[name="backend"][value="cpu"]');
    await page.click('#rank');
    await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
    await page.evaluate(() => { for (const details of document.querySelectorAll('details')) details.open = true; });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width} scrolls sideways`);
    const small = await page.evaluate(() => [...document.querySelectorAll('a, button, select, summary, textarea, input')]
      .filter((element) => element.checkVisibility()).map((element) => [element.id || element.className || element.textContent, element.getBoundingClientRect()])
      .filter(([, { width: w, height: h }]) => w < 24 || h < 24).map(([name, { width: w, height: h }]) => `${name} ${w} x ${h}`));
    assert.deepEqual(small, []);
    await page.screenshot({ path: join(out, `width-${width}.png`), fullPage: true });
    await finish();
  }
});

test('the notice: first in a dialog, once; then always in sight; theme and language are kept, also for the page of stored data', async () => {
  const { page, finish } = await tests.newPage({ path: '/', firstRun: true });
  await page.waitForSelector('#first-run[open]');
  for (const key of ['notice_lead', 'notice']) assert.ok((await page.textContent('#first-run')).includes(MESSAGES[key][0]));
  const { license } = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
  await page.waitForFunction((line) => document.querySelector('#first-run').textContent.includes(line), text('notice_weights', { license }, 'en'));
  await page.screenshot({ path: join(out, 'first-run-en.png') });
  await page.click('#first-run button');
  await page.selectOption('#theme', 'light');
  await page.click('#lang-zh');
  await page.reload();
  await idle(page);
  assert.ok(await page.isHidden('#first-run'));
  const worn = () => page.evaluate(() => { const { dataset, lang } = document.documentElement; return [dataset.theme, lang]; });
  assert.deepEqual(await worn(), ['light', 'zh-CN']);
  assert.equal(await page.getAttribute('#lang-zh', 'aria-pressed'), 'true');
  assert.ok(await page.isVisible('#notice'));

  await page.goto(new URL('storage.html', page.url()).href);
  await page.waitForSelector('#stored li');
  assert.deepEqual(await worn(), ['light', 'zh-CN']);
  assert.equal(await page.textContent('h1'), MESSAGES.stored_heading[1]);
  const lines = await page.locator('#stored li').allTextContents();
  for (const name of ['ctmatch-language', 'ctmatch-theme']) assert.ok(lines.includes(`${MESSAGES.stored_settings[1]}: ${name}`), lines.join());
  await page.click('#clear');
  await page.waitForFunction((line) => document.querySelector('#stored-state').textContent === line, MESSAGES.stored_none[1]);
  await page.goto(new URL('.', page.url()).href);
  assert.deepEqual(await worn(), ['dark', 'en']);
  await finish();
});
