// The candidate reports and the ranking on the page: every way in, editing, long lists, two side by side.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES, text } from '../../www/i18n.js';
import { Candidates } from '../../www/candidates.js';
import { differences } from '../../www/differences.js';
import { delimiterOf, firstRecords, guess, headerFor, isTable } from '../../www/table.js';
import { attempt, host, idle, out, rankOnCpu, SLOW_MS, useSample, www } from './harness.mjs';

const tests = host({ gpu: false });

const ready = (page) => page.waitForFunction(() => !document.querySelector('#choose-reports').disabled);
const give = (page, name, content) => page.setInputFiles('#reports-file', { name, mimeType: 'text/plain', buffer: Buffer.from(content) });
/** `[id, text]` of the candidates on this page of the list. */
const listed = (page) => page.evaluate(() =>
  [...document.querySelectorAll('#reports > li')].map((item) => [item.querySelector('strong').textContent, item.querySelector('.body').textContent]));

test('every format and its quirks, by file', async () => {
  const { page, finish } = await tests.newAppPage();
  const two = [['1', 'Clear lungs.'], ['2', 'Left effusion.\nSmall.']];
  const named = [['a', 'Clear lungs.'], ['b', 'Left effusion.\nSmall.']];
  const cases = [
    ['x.txt', 'Clear lungs.\r\n\r\nLeft effusion.\r\nSmall.', two],
    ['x.txt', 'Clear lungs.\n---\nLeft effusion.\nSmall.\n---\n', two],
    ['x.json', '\ufeff["Clear lungs.", "Left effusion.\\nSmall."]', two],
    ['x.jsonl', '{"id":"a","findings":"Clear lungs.","impression":"Not given."}\n{"id":"b","text":"Left effusion.\\nSmall."}\n', named],
    ['x.csv', 'id,findings,impression\r\na,Clear lungs.,\r\nb,"Left effusion.\nSmall.",Not given.\r\n', named],
    ['x.csv', '\ufeffVolumeName;Findings_EN;Impressions_EN\r\na;Clear lungs.;\r\nb;"Left effusion.\nSmall.";\r\n', named],
    ['x.tsv', 'id\ttext\na\tClear lungs.\nb\t"Left effusion.\nSmall."\n', named],
  ];
  for (const [name, content, expected] of cases) {
    await give(page, name, content);
    if (/sv$/.test(name)) await page.click('#columns-use');
    await page.waitForSelector('#reports li');
    await ready(page);
    assert.deepEqual(await listed(page), expected, JSON.stringify(content));
    assert.ok(await page.isHidden('#error'));
    await page.click('#clear-reports');
    await page.waitForSelector('#reports li', { state: 'detached' });
  }
  await give(page, 'x.json', '{"id": ');
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.textContent('#error-code'), 'TEXT_INPUT');
  await finish();
});

test('a table with unknown columns: the person says which they are', async () => {
  const { page, finish } = await tests.newAppPage();
  const table = 'Befund;Nr;Beurteilung\r\n"Clear; lungs.";7;Normal.\r\nLeft effusion.;8;\r\n';
  await give(page, 'x.csv', table);
  await page.waitForSelector('#columns[open]');
  assert.equal(await page.textContent('#columns-note'), MESSAGES.columns_needed[0]);
  assert.ok(await page.isDisabled('#columns-use'));
  const selects = page.locator('#columns select');
  await selects.nth(0).selectOption('findings');
  await selects.nth(1).selectOption('id');
  await selects.nth(2).selectOption('findings');
  assert.equal(await selects.nth(0).inputValue(), '', 'a role has one column');
  await selects.nth(2).selectOption('impression');
  await selects.nth(0).selectOption('findings');
  assert.match(await page.textContent('#columns tbody'), /Clear; lungs\./);
  await page.screenshot({ path: join(out, 'columns-en.png') });
  await page.click('#columns-use');
  await page.waitForSelector('#reports li');
  assert.deepEqual(await listed(page), [['7', 'Clear; lungs.Normal.'], ['8', 'Left effusion.']]);

  // Only the impression: what the columns are is the choice of the text.
  await ready(page);
  await page.click('#clear-reports');
  await give(page, 'x.csv', 'VolumeName,Findings_EN,Impressions_EN\na,Clear lungs.,Normal.\n');
  await page.waitForSelector('#columns[open]');
  assert.equal(await page.textContent('#columns-note'), MESSAGES.columns_ct_rate[0]);
  await selects.nth(1).selectOption('');
  await page.click('#columns-use');
  await page.waitForSelector('#reports li');
  assert.deepEqual(await listed(page), [['a', 'Normal.']]);

  // Closing it adds nothing.
  await ready(page);
  await give(page, 'x.csv', table);
  await page.waitForSelector('#columns[open]');
  await page.keyboard.press('Escape');
  await ready(page);
  assert.equal((await listed(page)).length, 1);
  await finish();
});

test('a table that is pasted, or in a file of any ending: the person says which columns; text with commas stays text', async () => {
  const { page, finish } = await tests.newAppPage();
  const table = 'Befund;Nr;Beurteilung\r\n"Clear; lungs.";7;Normal.\r\nLeft effusion.;8;\r\n';
  const choose = async (...roles) => {
    await page.waitForSelector('#columns[open]');
    for (const [i, role] of roles.entries()) await page.locator('#columns select').nth(i).selectOption(role);
    await page.click('#columns-use');
  };
  const clear = async () => {
    await idle(page);
    await page.click('#clear-reports');
    await page.waitForSelector('#reports li', { state: 'detached' });
  };
  const paste = async (content) => {
    await page.fill('#paste', content);
    await page.click('#add-pasted');
  };
  await paste(table);
  await choose('findings', 'id', 'impression');
  await page.waitForSelector('#reports li');
  await idle(page);
  assert.deepEqual(await listed(page), [['7', 'Clear; lungs.Normal.'], ['8', 'Left effusion.']]);
  assert.equal(await page.inputValue('#paste'), '');
  await clear();

  await give(page, 'x.dat', '\ufeffNr\tBefund\n7\tClear lungs, no nodule.\n8\tEffusion.\n');
  await choose('id', 'text');
  await page.waitForSelector('#reports li');
  assert.deepEqual(await listed(page), [['7', 'Clear lungs, no nodule.'], ['8', 'Effusion.']]);
  await clear();

  // Closed, it stays where it was pasted; and a person may say that it is text.
  await paste(table);
  await page.waitForSelector('#columns[open]');
  await page.click('#columns-cancel');
  await idle(page);
  assert.deepEqual([await page.inputValue('#paste'), (await listed(page)).length], [table.replaceAll('\r', ''), 0]);
  await page.click('#add-pasted');
  await page.waitForSelector('#columns[open]');
  await page.click('#columns-text');
  await page.waitForSelector('#reports li');
  await idle(page);
  assert.equal((await listed(page)).length, 1);
  assert.equal(await page.inputValue('#paste'), '');
  await clear();

  // What the package knows, and text, ask nothing.
  for (const [content, count] of [['id,text\n1,"Clear lungs, no nodule."\n2,Effusion.', 2], ['Lungs are clear, no nodule.\nHeart is normal, no effusion.', 1],
    ['Lungs clear,heart normal\nNo nodule,no effusion', 1], ['{"id":"1","text":"Clear, lungs."}\n{"id":"2","text":"No, effusion."}', 2]]) {
    await paste(content);
    await page.waitForSelector('#reports li');
    await idle(page);
    assert.equal((await listed(page)).length, count, content);
    await clear();
  }
  // A file whose ending says what it is.
  await give(page, 'x.csv', table);
  await page.waitForSelector('#columns[open]');
  assert.ok(await page.isHidden('#columns-text'));
  await page.click('#columns-cancel');
  await finish();
});

test('what looks like a table, and what may be prose', () => {
  for (const table of [
    'Befund;Nr;Beurteilung\r\n"Clear; lungs.";7;Normal.\r\nLeft effusion.;8;\r\n', 'Nr\tBefund\n7\tClear lungs, no nodule.\n8\tLeft effusion.\n',
    'Accession,Narrative\nA-1,"Clear lungs, no nodule."\nA-2,Emphysema.', '检查号,所见\n1,双肺清晰。\n2,左侧胸腔积液。', 'key,narrative\na,"One.\n\nTwo."\nb,Three.',
    'Befund\tBeurteilung\nLungs clear.\tNormal.\nEffusion.\tAbnormal.',
  ]) assert.ok(isTable(table), table);
  for (const prose of [
    '', 'Clear lungs.', 'Nr,Befund', 'Lungs are clear, no nodule.\nHeart is normal, no effusion.', 'Lungs clear,heart normal\nNo nodule,no effusion',
    'Lungs clear,heart normal\nNodule of 5 mm,right upper lobe.', '双肺清晰,未见结节\n心脏正常,未见积液', 'CT of the chest; no contrast.\nClear lungs; no nodule.',
    'Nr,Befund\n\n7,Clear.', 'Nr,Befund\r\n \r\n7,Clear.', 'Nr,Befund\n---\n7,Clear.', 'Nr,Befund\n7,Clear, normal.', 'Findings:\tclear\nImpression:\tnormal',
    'Lungs\tclear\nHeart\tnormal', 'Rundherd 1,5cm\nRundherd 2,3cm', 'Comparison, prior CT\nSegments, 5',
  ]) assert.ok(!isTable(prose), prose);
});

test('equal after the text rule: merged, refused in the editor, once in a view of sections (R-2, R-4)', async () => {
  const { page, finish } = await tests.newAppPage();
  await page.fill('#paste', JSON.stringify([
    { id: 'a', findings: 'Clear lungs.', impression: 'Normal.' }, { id: 'b', findings: "Clear 'lungs'.", impression: 'Normal (chest).' },
    { id: 'c', findings: 'Effusion.', impression: '"Normal."' }, { id: 'd', findings: 'Emphysema.', impression: 'Not given.' },
  ]));
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 4);
  await idle(page);
  const edit = async (id, value) => {
    await page.click(`#reports > li[data-id="${id}"] [data-edit]`);
    await page.fill('#edit-text', value);
    await page.click('#edit-form .primary');
  };
  const problem = async (key) => {
    assert.equal(await page.textContent('#edit-problem'), MESSAGES[key][0]);
    await page.click('#edit-cancel');
  };
  await edit('d', 'Clear (lungs)."Normal."');
  await problem('edit_equal');
  await edit('d', '("")');
  await problem('edit_empty');
  await edit('d', "Emphysema. 'Mild'.");
  await page.waitForSelector('#edit', { state: 'hidden' });
  await idle(page);
  await page.fill('#paste', 'Emphysema. Mild.');
  await page.click('#add-pasted');
  await idle(page);
  assert.equal(await page.textContent('#report-notes'), `4 reports · ${text('duplicates', { n: 1 })}`, 'what was edited is known by what is compared');

  const usable = () => attempt(page, async () => (await import('/candidates.js')).candidates.usable.map(({ id }) => id));
  assert.deepEqual(await usable(), ['a', 'b', 'c', 'd']);
  await page.selectOption('#report-view', 'findings');
  assert.deepEqual(await usable(), ['a', 'c']);
  assert.equal(await page.textContent('#report-notes'), `4 reports · ${text('view_left_out', { n: 1 })} · ${text('duplicates', { n: 2 })}`);
  await edit('c', 'Clear "lungs".');
  await problem('edit_equal');
  await page.selectOption('#report-view', 'impression');
  assert.deepEqual(await usable(), ['a', 'b']);
  await page.selectOption('#report-view', 'full');
  assert.deepEqual(await usable(), ['a', 'b', 'c', 'd'], 'no report is lost by looking at a section');

  // The rule of the page is that of the package.
  const texts = ['a "b" \'c\' (d) [e] “f”', ' Not given. ', "it's\nline", 'Not given. Really.', '((x))'];
  const [ours, theirs] = await attempt(page, async (given) => {
    const [{ Candidates }, { open }] = await Promise.all([import('/candidates.js'), import('/ctmatch/index.js')]);
    const session = await open({ backend: 'cpu' });
    const found = [];
    for (const written of given) found.push(await session.parseReports(JSON.stringify([{ text: written }]), { format: 'json' }).then(([{ text: ruled }]) => ruled, () => ''));
    await session.close();
    // Equal where the editor refuses one beside the other.
    const same = given.map((written, i) => {
      const list = new Candidates();
      list.add([{ id: '1', text: found[i] || 'other' }, { id: '2', text: 'another' }]);
      return list.edit('2', { id: '2', text: written }) ?? '';
    });
    return [same, found];
  }, texts);
  assert.deepEqual(ours, theirs.map((ruled) => (ruled === '' ? 'edit_empty' : 'edit_equal')), theirs.join('|'));
  await finish();
});

test('dropped and pasted; edited, and refused when equal to another', async () => {
  const { page, finish } = await tests.newAppPage();
  await page.evaluate(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(['Clear lungs.\n\nLeft effusion.'], 'x.txt'));
    document.querySelector('#reports').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
  });
  await page.waitForSelector('#reports li');
  await ready(page);
  await page.fill('#paste', '[{"id":"p","text":"Emphysema."},{"text":"Clear lungs."}]');
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 3);
  assert.equal(await page.textContent('#report-notes'), `3 reports · ${text('duplicates', { n: 1 })}`);

  await ready(page);
  await page.click('#reports > li:nth-child(3) .tools button');
  await page.fill('#edit-text', 'Clear lungs.');
  await page.click('#edit-form .primary');
  assert.equal(await page.textContent('#edit-problem'), MESSAGES.edit_equal[0]);
  await page.fill('#edit-text', 'Emphysema. Seen by Dr. Miller.');
  await page.fill('#edit-id', 'q');
  await page.click('#edit-form .primary');
  await page.waitForSelector('#edit', { state: 'hidden' });
  await page.waitForSelector('#reports .hints');
  assert.deepEqual((await listed(page))[2], ['q', 'Emphysema. Seen by Dr. Miller.']);
  await page.click('#reports > li:nth-child(1) .tools button:last-child');
  assert.equal((await listed(page)).length, 2);
  await finish();
});

test('5,000 reports: the page stays quick, and one of them is found', async () => {
  const { page, finish } = await tests.newAppPage();
  await page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration); }).observe({ type: 'longtask' });
  });
  const lines = Array.from({ length: 5001 }, (_, i) => JSON.stringify({ id: `r${i}`, text: `Nodule of ${i} mm in the right upper lobe.` }));
  await give(page, 'x.jsonl', lines.join('\n'));
  await page.waitForSelector('#error:not([hidden])'); // the package's limit for one file
  assert.equal(await page.textContent('#error-code'), 'TEXT_INPUT');
  await ready(page);
  await give(page, 'x.jsonl', lines.slice(0, 5000).join('\n'));
  await page.waitForSelector('#reports li');
  await ready(page);
  await page.fill('#paste', lines[5000]);
  await page.click('#add-pasted');
  await page.waitForFunction((line) => document.querySelector('#report-notes').textContent.includes(line), text('too_many', { limit: 5000, n: 1 }));
  assert.equal(await page.textContent('#report-notes'), `5,000 reports · ${text('too_many', { limit: 5000, n: 1 })}`);
  await page.fill('#report-filter', 'r4711');
  assert.deepEqual((await listed(page)).map(([id]) => id), ['r4711']);
  const longest = await page.evaluate(() => window.longest);
  assert.ok(longest < 1000, `${longest} ms`);
  await finish();
});

test('a text that is cut is marked on its row, in the list and in the result', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await ready(page);
  await page.click('#clear-reports');
  await page.fill('#paste', `${'Small left pleural effusion. '.repeat(130)}\n\nClear lungs.`);
  await page.click('#add-pasted');
  await page.waitForSelector('#reports li');
  await ready(page);
  await rankOnCpu(page);
  assert.match(await page.textContent('#reports'), /cut at 512 tokens/);
  assert.ok((await page.textContent('#report-notes')).includes(text('truncated_count', { n: 1, limit: 512 })));
  assert.equal(await page.locator('#result-rows .tie').filter({ hasText: MESSAGES.truncated_short[0] }).count(), 1);
  await finish();
});

test('two candidates side by side: the words that differ are marked', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await ready(page);
  await page.click('#clear-reports');
  await page.fill('#paste', 'Small left pleural effusion. Clear lungs.\n\nSmall right pleural effusion. Clear lungs.\n\nEmphysema.');
  await page.click('#add-pasted');
  await page.waitForSelector('#reports li');
  await rankOnCpu(page);
  const ids = await page.locator('#result-rows strong').allTextContents();
  for (const id of ['1', '2']) await page.click(`#result-rows tr:nth-child(${ids.indexOf(id) + 1}) [data-compare]`);
  await page.waitForSelector('#comparison:not([hidden])');
  assert.deepEqual((await page.locator('#comparison mark').allTextContents()).sort(), ['left', 'right']);
  await page.locator('#comparison').screenshot({ path: join(out, 'comparison-en.png') });
  await page.click('#comparison-close');
  assert.ok(await page.isHidden('#comparison'));
  assert.equal(await page.locator('[data-compare][aria-pressed="true"]').count(), 1);
  await finish();
});

test('head of a table: records, delimiter, columns', () => {
  const records = (...given) => firstRecords(...given).map(({ cells }) => cells);
  assert.deepEqual(records('a,b\r\n"x, ""y""\nz",\r\n', ',', 9), [['a', 'b'], ['x, "y"\nz', '']]);
  assert.deepEqual(records('\n\na;b\n1;2', ';', 9), [['a', 'b'], ['1', '2']]);
  assert.deepEqual(records('a,b\n1,"cut off', ',', 9, true), [['a', 'b']]);
  assert.equal(firstRecords('a,b\r\n1,2', ',', 1)[0].end, 3);
  assert.deepEqual(['a,b', 'a;b;c', 'a\tb', 'a'].map(delimiterOf), [',', ';', '\t', ',']);
  assert.deepEqual(guess(['VolumeName', 'Findings_EN', 'x', 'Impressions_EN']), { roles: ['id', 'findings', '', 'impression'], ctRate: true });
  assert.deepEqual(guess(['text', 'Text']), { roles: ['text', ''], ctRate: false });
  assert.equal(headerFor(['id', '', 'text'], ';'), 'id;column 2;text');
});

test('differing words', () => {
  const marked = (a, b) => differences(a, b).map((runs) => runs.filter(({ same }) => !same).map((run) => run.text));
  assert.deepEqual(marked('A small nodule.', 'A large nodule.'), [['small'], ['large']]);
  assert.deepEqual(marked('same', 'same'), [[], []]);
  assert.deepEqual(marked('右肺结节', '左肺结节'), [['右'], ['左']]);
  assert.deepEqual(marked('', 'new'), [[], ['new']]);
  for (const pair of [['a b c d', 'b x d'], ['one, two', 'two one']]) {
    assert.deepEqual(differences(...pair).map((runs) => runs.map((run) => run.text).join('')), pair);
  }
});

test('editing the list', () => {
  const list = new Candidates();
  list.add([{ id: 'a', text: 'one' }, { id: 'b', text: 'two', label: 'x' }]);
  Object.assign(list.rows[1], { tokens: 3, hints: [] });
  assert.equal(list.edit('b', { id: 'b', text: 'one' }), 'edit_equal');
  assert.equal(list.edit('b', { id: 'a', text: 'two' }), 'edit_id_taken');
  assert.equal(list.edit('b', { id: 'b', text: ' ' }), 'edit_empty');
  assert.equal(list.edit('b', { id: 'c', text: 'two' }), undefined);
  assert.deepEqual(list.rows[1], { id: 'c', text: 'two', label: 'x', tokens: 3, hints: [] });
  assert.equal(list.edit('c', { id: 'c', text: 'three' }), undefined);
  assert.deepEqual(list.rows[1], { id: 'c', text: 'three', label: 'x' });
});

test('findings, impression or both: by choice, recorded, reports without the section left out', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  assert.ok(await page.isHidden('#report-view'));
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await ready(page);
  await page.click('#clear-reports');
  const given = [{ id: 'a', findings: 'Clear lungs.', impression: 'Normal.' }, { id: 'b', findings: 'Left effusion.', impression: 'Not given.' }, { id: 'c', text: 'Emphysema.' }];
  await give(page, 'x.json', JSON.stringify(given));
  await page.waitForSelector('#reports li');
  await ready(page);
  const ranked = async () => {
    await rankOnCpu(page);
    await ready(page);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
    const { preprocess, candidates } = JSON.parse(await readFile(await download.path(), 'utf8'));
    return [preprocess.text_source, Object.fromEntries(candidates.map(({ id, text_sha256: sha256 }) => [id, sha256]))];
  };
  const sha256 = (line) => createHash('sha256').update(line).digest('hex');
  assert.deepEqual(await ranked(), ['full', { a: sha256('Clear lungs.Normal.'), b: sha256('Left effusion.'), c: sha256('Emphysema.') }]);
  await page.selectOption('#report-view', 'findings');
  assert.ok(await page.isHidden('#result'), 'the ranking was of other texts');
  assert.deepEqual(await listed(page), [['a', 'Clear lungs.'], ['b', 'Left effusion.'], ['c', MESSAGES.no_section[0]]]);
  assert.ok((await page.textContent('#report-notes')).includes(text('view_left_out', { n: 1 })));
  assert.deepEqual(await ranked(), ['findings', { a: sha256('Clear lungs.'), b: sha256('Left effusion.') }]);
  await page.selectOption('#report-view', 'impression');
  await page.click('#reports [data-edit]');
  assert.equal(await page.inputValue('#edit-text'), 'Normal.');
  await page.fill('#edit-text', 'Normal chest.');
  await page.click('#edit-form .primary');
  await page.waitForSelector('#edit', { state: 'hidden' });
  await ready(page);
  assert.deepEqual(await ranked(), ['impression', { a: sha256('Normal chest.') }]);
  await page.selectOption('#report-view', 'full');
  assert.deepEqual((await listed(page))[0], ['a', 'Clear lungs.Normal chest.']);
  await finish();
});

test('lists by keyboard: next, open, reviewed, filter', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await ready(page);
  const focused = () => page.evaluate(() => document.activeElement.dataset.id);
  await page.focus('#report-list');
  for (const [key, id] of [['j', 'A'], ['j', 'B'], ['ArrowDown', 'C'], ['k', 'B']]) {
    await page.keyboard.press(key);
    assert.equal(await focused(), id);
  }
  await page.keyboard.press('x');
  assert.equal(await page.getAttribute('#reports [data-review="B"]', 'aria-pressed'), 'true');
  assert.equal(await page.textContent('#reviewed-notes'), text('reviewed_count', { n: 1, total: 4 }));
  await page.keyboard.press('Enter');
  await page.waitForSelector('#edit[open]');
  assert.equal(await page.inputValue('#edit-id'), 'B');
  await page.keyboard.press('Escape');
  await page.keyboard.press('/');
  await page.keyboard.type('effusion x');
  assert.equal(await page.inputValue('#report-filter'), 'effusion x', 'letters are letters in a field');
  await page.fill('#report-filter', '');

  await rankOnCpu(page);
  await ready(page);
  assert.equal(await page.getAttribute('#result-rows [data-review="B"]', 'aria-pressed'), 'true');
  const ids = await page.locator('#result-rows strong').allTextContents();
  await page.focus('#result-table');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  assert.equal(await focused(), ids[1]);
  await page.keyboard.press('Enter');
  assert.ok(await page.locator('#result-rows tr').nth(1).evaluate((row) => row.classList.contains('open')));
  await page.keyboard.press('/');
  await page.keyboard.type('cardiomegaly');
  assert.deepEqual(await page.locator('#result-rows strong').allTextContents(), ['A']);
  await page.screenshot({ path: join(out, 'lists-en.png'), fullPage: true });
  await finish();
});

test('reports in another script, equal ranks and a lead within noise are said in so many words (R-3, R-8, R-9)', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await useSample(page);
  const rank = async () => {
    await rankOnCpu(page);
    await idle(page);
    const rows = await page.evaluate(() => [...document.querySelectorAll('#result-rows tr')].map((row) => [row.dataset.id, row.querySelector('td').textContent]));
    return { rows, notes: await page.textContent('#result-notes') };
  };
  const apart = await rank();
  assert.deepEqual(apart.rows.map(([, shown]) => shown), ['1', '2', '3', '4']);
  assert.ok(!apart.notes.includes(MESSAGES.noise[0]));
  assert.ok(!(await page.textContent('#report-notes')).includes(MESSAGES.english_only[0]));

  // The same words as those of the best, with another space: another candidate, and the same latent.
  const [[best]] = apart.rows;
  const { findings, impression } = JSON.parse(await readFile(join(www, 'sample/reports.json'), 'utf8')).find(({ id }) => id === best);
  await page.fill('#paste', `${findings}${impression}`.replace(' ', '  '));
  await page.click('#add-pasted');
  await ready(page);
  const tied = await rank();
  const badge = ` ${MESSAGES.tie[0]}`;
  assert.deepEqual(tied.rows.map(([, shown]) => shown), [`1${badge}`, `1${badge}`, '3', '4', '5']);
  assert.deepEqual(tied.rows.slice(0, 2).map(([id]) => id), [best, '1'], 'in the order of the list');
  assert.ok(tied.notes.startsWith(MESSAGES.noise[0]), tied.notes);

  await page.fill('#paste', '右肺上叶见结节，无胸腔积液。');
  await page.click('#add-pasted');
  await ready(page);
  assert.ok((await page.textContent('#report-notes')).endsWith(MESSAGES.english_only[0]));
  await page.click('#lang-zh');
  assert.ok((await page.textContent('#report-notes')).endsWith(MESSAGES.english_only[1]));
  await finish();
});
