// The shapes that are timed, and what is made once for each.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { repository } from '../browser/harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));

const tiny = JSON.parse(readFileSync(join(repository, 'www/model/config.json'), 'utf8'));
// The published towers. The demo's tokenizer uses the first rows of the vocabulary only.
const full = {
  dim_latent: 512, frames: 240, spacing_mm: [1.5, 0.75, 0.75],
  bert: {
    vocab_size: 30_522, hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072, max_position_embeddings: 512,
    type_vocab_size: 2, layer_norm_eps: 1e-12,
  },
  vit: { dim: 512, codebook_size: 8192, image_size: 480, patch_size: 20, temporal_patch_size: 10, spatial_depth: 4, temporal_depth: 4, dim_head: 32, heads: 8 },
};
const quarter = { ...full, frames: 120, vit: { ...full.vit, image_size: 240 } };
export const SIZES = { tiny, quarter, full };

/** @param {string} size */
export const folderOf = (size) => join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ctmatch/bench', size);

/**
 * Makes the files of one size, unless they are there and of these scripts.
 * @param {{ config: object, folder: string, native: (...args: string[]) => string, python: string }} given `native`: the command
 */
export function prepare({ config, folder, native, python }) {
  const file = (name) => join(folder, name);
  const made = createHash('sha256').update(JSON.stringify(config));
  for (const script of ['network.py', 'prepare.py']) made.update(readFileSync(join(here, script)));
  const stamp = made.digest('hex');
  if (existsSync(file('made')) && readFileSync(file('made'), 'utf8') === stamp) return;
  console.log(`writing ${folder}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(file('config.json'), JSON.stringify(config));
  native('hash-checkpoint', '--config', file('config.json'), '--out', file('checkpoint.safetensors'));
  native('convert', file('checkpoint.safetensors'), '--config', file('config.json'), '--tokenizer', join(repository, 'www/model/tokenizer.json'),
    '--weights', 'f32', '--untrained', '--license', 'CC0-1.0', '--out', file('model'));
  execFileSync(python, [join(here, 'prepare.py'), file('config.json'), file('checkpoint.safetensors'), folder], { stdio: 'inherit' });
  writeFileSync(file('made'), stamp);
}

/** What the native command makes of the grid. @param {{ folder: string, native: (...args: string[]) => string }} given */
export function nativeLatent({ folder, native }) {
  const latent = join(folder, 'latent.safetensors');
  native('encode', '--model', join(folder, 'model'), '--tensor', join(folder, 'grid.npy'), '--out', latent);
  const bytes = readFileSync(latent);
  const length = Number(bytes.readBigUInt64LE(0));
  const [start, end] = JSON.parse(bytes.toString('utf8', 8, 8 + length)).image_latents.data_offsets;
  return Float32Array.from({ length: (end - start) / 4 }, (_, i) => bytes.readFloatLE(8 + length + start + 4 * i));
}
