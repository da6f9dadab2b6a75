// What a session promises of time and of its device: bounded submissions, the self-test on demand, an estimate; and slabs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attempt, cosine, host, SLOW_MS } from './harness.mjs';

const tests = host();

/** In the page: what the tests below share, in `window.setup`. */
const prepare = () => {
  const { open } = window.ctmatch;
  const options = { model: '/model/manifest.json', allowSoftwareAdapter: true };
  const read = async (session) => {
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    return { volume, accept };
  };
  window.setup = { open, options, read, code: (promise) => promise.then(() => 'no error', (error) => (error.name === 'CtmatchError' ? error.code : error.name)) };
};

/** Counts submissions, and leaves out kernels when told to: in the page's thread only. */
const tamper = () => {
  window.skipEvery = 0;
  window.submissions = 0;
  const { submit } = GPUQueue.prototype;
  GPUQueue.prototype.submit = function counted(...args) {
    window.submissions += 1;
    return submit.apply(this, args);
  };
  let dispatches = 0;
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function spoiled(...args) {
    dispatches += 1;
    return window.skipEvery && dispatches % window.skipEvery === 0 ? undefined : dispatchWorkgroups.apply(this, args);
  };
};

test('submissions are cut by measurement, an abort leaves little behind, and the numbers stay', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  await attempt(page, prepare);
  const run = (maxSubmitMs) => attempt(page, async (maxSubmitMs) => {
    const { open, options, read } = window.setup;
    const session = await open({ ...options, worker: false, maxSubmitMs: maxSubmitMs ?? Infinity });
    const { volume, accept } = await read(session);
    const counts = async () => ({ ...JSON.parse(await session.diagnostics()).submissions, submissions: window.submissions });
    const before = await counts();
    const image = await session.encodeVolume(volume, { accept });
    const after = await counts();
    // After an abort in the middle, the next call waits for what the queue holds.
    const controller = new AbortController();
    const aborted = await session.encodeVolume(volume, { accept, signal: controller.signal, onProgress: ({ phase, done }) => { if (phase === 'encode' && done === 2) controller.abort(); } })
      .catch((error) => error.name);
    const from = performance.now();
    await session.encodeReports([`a text ${maxSubmitMs}`]);
    const servedMs = performance.now() - from;
    await session.close();
    return {
      vector: [...image.vector], codes: [...image.codes], aborted, servedMs, timingsMs: image.timingsMs, limited: after.limit !== null,
      submissions: after.submissions - before.submissions, waits: after.waits - before.waits, longestMs: after.longestMs, maxMs: after.maxMs,
    };
  }, maxSubmitMs);
  const whole = await run(null);
  const cut = await run(30);
  for (const { vector, codes, ...rest } of [whole, cut]) console.log('submissions', JSON.stringify(rest));
  assert.deepEqual([whole.limited, whole.waits, cut.limited, cut.maxMs], [false, 0, true, 30]);
  assert.ok(whole.submissions <= 30 && cut.submissions > 1.5 * whole.submissions, `${whole.submissions} ${cut.submissions}`);
  // Not `longestMs`: the first submission that is too long is what the cutting begins with.
  assert.ok(cut.waits > 5);
  assert.equal(cut.timingsMs.longestSubmission, cut.longestMs);
  assert.ok(whole.longestMs > 60, 'this device is slow enough to show it');
  assert.ok(cut.servedMs < whole.servedMs, `${cut.servedMs} ${whole.servedMs}`);
  assert.deepEqual([whole.aborted, cut.aborted], ['AbortError', 'AbortError']);
  assert.deepEqual(cut.codes, whole.codes);
  assert.ok(cosine(cut.vector, whole.vector) > 1 - 1e-9);
  await finish();
});

test('the self-test on demand, stopped in the middle, and a device that fails it serves no more', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  await attempt(page, prepare);
  const found = await attempt(page, async () => {
    const { open, options, read } = window.setup;
    const session = await open({ ...options, backend: 'cpu', selfTest: 'off' });
    const { volume, accept } = await read(session);
    const provenance = async () => (await session.encodeVolume(volume, { accept })).provenance.selfTest;
    const result = { before: [session.info.selfTest, await provenance()] };
    const fractions = [];
    result.passed = await session.selfTest({ onProgress: ({ phase, fraction }) => { if (phase === 'self-test') fractions.push(fraction); } });
    result.fractions = [fractions[0], fractions.at(-1), fractions.length > 5, fractions.every((value, i) => i === 0 || value >= fractions[i - 1])];
    result.after = [session.info.selfTest.codes, await provenance()];
    const controller = new AbortController();
    const reason = new DOMException('enough', 'AbortError');
    result.aborted = await session.selfTest({ signal: controller.signal, onProgress: ({ fraction }) => { if (fraction > 0.3) controller.abort(reason); } }).catch((error) => error === reason);
    result.goesOn = await provenance();
    await session.close();
    return result;
  });
  const { passed, ...rest } = found;
  assert.equal(passed?.passed, true, JSON.stringify(found));
  assert.ok(passed.cosine > 0.999999 && passed.cosine <= 1 && Math.max(passed.tokens, passed.image, passed.text) < 1e-3);
  assert.deepEqual(rest, {
    before: [undefined, 'skipped'], fractions: [0, 1, true, true], after: [passed.codes, 'passed'], aborted: true, goesOn: 'passed',
  });

  const failing = await attempt(page, async () => {
    const { open, options, read, code } = window.setup;
    const session = await open({ ...options, worker: false, selfTest: 'off' });
    const { volume, accept } = await read(session);
    window.skipEvery = 50;
    const failed = await session.selfTest().then(({ passed }) => passed, (error) => error.code);
    window.skipEvery = 0;
    const refused = [await code(session.encodeVolume(volume, { accept })), await code(session.encodeReports(['text'])), await code(session.selfTest())];
    await session.recover();
    const again = [(await session.encodeReports(['text'])).size, (await session.selfTest()).passed];
    await session.close();
    return { failed: [false, 'BAD_RESULT'].includes(failed), refused, again };
  });
  assert.deepEqual(failing, { failed: true, refused: Array(3).fill('SELF_TEST_FAILED'), again: [1, true] });

  // Stopped while a session opens, there is none; in a worker and here.
  for (const worker of [undefined, false]) {
    const stopped = await attempt(page, async (worker) => {
      const { open, options } = window.setup;
      const controller = new AbortController();
      const reason = new DOMException('enough', 'AbortError');
      let at;
      const onProgress = ({ phase, fraction }) => {
        if (phase !== 'self-test' || at || fraction < 0.3) return;
        at = performance.now();
        controller.abort(reason);
      };
      const outcome = await open({ ...options, worker, signal: controller.signal, onProgress }).catch((error) => error === reason);
      const ms = performance.now() - at;
      const session = await open({ ...options, worker });
      const { selfTest } = session.info;
      await session.close();
      return { outcome, soon: ms < 500, next: selfTest.codes[0] > 0 };
    }, worker);
    assert.deepEqual(stopped, { outcome: true, soon: true, next: true });
  }
  await finish();
});

test('once per device: a passed self-test is remembered, a failed one never', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  await attempt(page, prepare);
  const found = await attempt(page, async () => {
    const { open, options, code } = window.setup;
    const once = { ...options, worker: false, backend: 'cpu', selfTest: 'once-per-device' };
    const start = async (more) => {
      let tested = false;
      const session = await open({ ...once, ...more, onProgress: ({ phase }) => { tested ||= phase === 'self-test'; } });
      return { session, told: [tested, session.info.selfTest?.earlier ?? false, session.info.selfTest?.codes?.[0] > 0] };
    };
    const told = async (more) => {
      const { session, told: seen } = await start(more);
      await session.close();
      return seen;
    };
    const result = {
      first: await told(), second: await told(), always: await told({ selfTest: 'always' }), yes: await told({ selfTest: true }), off: await told({ selfTest: 'off' }),
      nowhere: [await told({ cache: 'none' }), await told({ cache: 'none' }), await told({ cache: 'memory' })],
      wrong: [await code(open({ ...once, maxSubmitMs: 0 })), await code(open({ ...once, maxSubmitMs: NaN }))],
    };
    const { session } = await start();
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const accept = volume.findings.map(({ code: name }) => name);
    result.provenance = (await session.encodeVolume(volume, { accept })).provenance.selfTest;
    await session.clearCache();
    await session.close();
    result.cleared = await told();

    // The GPU is another device, and one that fails is not remembered.
    const gpu = { backend: 'webgpu' };
    window.skipEvery = 50;
    result.failed = ['BAD_RESULT', 'SELF_TEST_FAILED'].includes(await code(open({ ...once, ...gpu })));
    window.skipEvery = 0;
    result.gpu = [await told(gpu), await told(gpu)];
    const { session: later, told: seen } = await start(gpu);
    window.skipEvery = 50;
    await later.selfTest().catch(() => {});
    window.skipEvery = 0;
    await later.close();
    result.forgotten = [seen, await told(gpu)];
    return result;
  });
  const [ran, kept] = [[true, false, true], [false, true, true]];
  assert.deepEqual(found, {
    first: ran, second: kept, always: ran, yes: ran, off: [false, false, false], nowhere: [ran, ran, ran], wrong: Array(2).fill('INVALID_ARGUMENT'),
    provenance: 'passed-earlier', cleared: ran, failed: true, gpu: [ran, kept], forgotten: [kept, ran],
  });
  await finish();
});

for (const backend of ['cpu', 'webgpu']) {
  test(`an encode takes about as long as was estimated (${backend})`, { timeout: 3 * SLOW_MS }, async () => {
    const { page, finish } = await tests.newPackagePage();
    await attempt(page, prepare);
    const found = await attempt(page, async (backend) => {
      const { open, options, read, code } = window.setup;
      const session = await open({ ...options, backend });
      const { volume, accept } = await read(session);
      const result = { air: await session.estimate(), volume: await session.estimate(volume) };
      const from = performance.now();
      await session.encodeVolume(volume, { accept });
      result.ms = performance.now() - from;
      result.aborted = await code(session.estimate(volume, { signal: AbortSignal.abort() }));
      volume.close();
      result.closed = await code(session.estimate(volume));
      await session.close();
      return result;
    }, backend);
    console.log('estimate', backend, JSON.stringify(found));
    for (const { encodeVolumeMs, flops, measuredMs } of [found.air, found.volume]) {
      // On the CPU the demo model takes a tenth of a second, of which a part does not grow with the work.
      assert.ok(encodeVolumeMs > found.ms / 5 && encodeVolumeMs < 5 * found.ms, `${encodeVolumeMs} ms for ${found.ms}`);
      assert.ok(measuredMs > 0 && flops > 1e8 && Number.isInteger(flops));
    }
    assert.deepEqual([found.aborted, found.closed], ['AbortError', 'CLOSED']);
    await finish();
  });
}

test('a slab shows the highest value of its slices', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  await attempt(page, prepare);
  for (const worker of [undefined, false]) {
    const found = await attempt(page, async (worker) => {
      const { open, options, read, code } = window.setup;
      const session = await open({ ...options, backend: 'cpu', worker });
      const { volume } = await read(session);
      const same = {};
      for (const [grid, plane, index, spacing] of [['native', 'axial', 12, volume.spacingMm[2]], ['native', 'sagittal', 90, volume.spacingMm[0]], ['model', 'coronal', 40, undefined]]) {
        const mm = 2 * (spacing ?? 1e-9);
        const slices = await Promise.all((spacing ? [index - 1, index, index + 1] : [index]).map((at) => volume.slice(plane, at, { grid })));
        const slab = await volume.slice(plane, index, { grid, slabMm: mm });
        same[`${grid} ${plane}`] = slab.width === slices[0].width && slab.hu.every((value, i) => value === Math.max(...slices.map(({ hu }) => hu[i])));
      }
      const [thin, thick] = await Promise.all([0, 40].map((slabMm) => volume.slice('coronal', 40, { grid: 'model', slabMm })));
      const result = { same, grows: thick.hu.every((value, i) => value >= thin.hu[i]) && thick.hu.some((value, i) => value > thin.hu[i]), wrong: await code(volume.slice('axial', 0, { slabMm: -1 })) };
      await session.close();
      return result;
    }, worker);
    assert.deepEqual(found, { same: { 'native axial': true, 'native sagittal': true, 'model coronal': true }, grows: true, wrong: 'INVALID_ARGUMENT' });
  }
  await finish();
});

test('probe passes over variants above the budget, and says when none is left', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const manifest = await (await fetch('/model/manifest.json')).json();
    const [[name, variant]] = Object.entries(manifest.variants);
    // Listed first, and larger than the other.
    const model = { ...manifest, variants: { large: { ...variant, gpuBytes: 3e9 }, [name]: variant } };
    const ask = async (gpuMemoryBudgetBytes) => {
      const { webgpu, advice } = await window.ctmatch.probe({ model, allowSoftwareAdapter: true, gpuMemoryBudgetBytes });
      return [webgpu.usable, webgpu.reason, advice.backend, advice.variant === name ? 'small' : advice.variant, advice.notes];
    };
    return [await ask(undefined), await ask(1e9), await ask(1000)];
  });
  assert.deepEqual(found, [
    [true, undefined, 'webgpu', 'large', []], [true, undefined, 'webgpu', 'small', []],
    [false, 'limits', 'cpu', 'large', ['no variant of the model fits gpuMemoryBudgetBytes; the CPU is much slower']],
  ]);
  await finish();
});
