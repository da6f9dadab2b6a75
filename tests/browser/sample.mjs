// Makes www/sample/chest.nii.gz: a synthetic chest (no patient data) with a nodule in the right lung and fluid at the
// left base. Run again only to change the sample: `node sample.mjs`.

import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const DIMS = [224, 192, 36]; // along the patient's left, posterior, superior direction
const SPACING = [1.5, 1.5, 8]; // mm: 336 x 288 x 288 mm

/** Signed "inside-ness" of an ellipsoid: > 0 inside. Centre and radii in mm. */
const ellipsoid = (p, centre, radii) => 1 - Math.hypot(...p.map((v, i) => (v - centre[i]) / radii[i]));

/** A small integer hash in [0, 1): quantum noise that is the same on every machine. */
function noise(n) {
  let h = Math.imul(n ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
}

/** HU at a point in mm; x to the left, y to the back, z up, origin in the middle of the volume. */
function hu([x, y, z]) {
  const taper = 1 - 0.18 * Math.max(0, z / 144) ** 2;
  const inBody = 1 - Math.hypot(x / (158 * taper), y / (112 * taper));
  if (inBody < 0) return -1000;
  let value = inBody < 0.07 ? -100 : 45; // fat shell, then muscle

  const spine = Math.hypot(x, y - 70);
  if (spine < 19) value = spine > 15 ? 600 : 180;
  if (Math.hypot(x, y - 94) < 8) value = 20; // canal
  if (Math.abs(x) < 14 && Math.abs(y + 92) < 6 && z > -70) value = 350; // sternum

  const cage = Math.hypot(x / 130, y / 88);
  const ribPhase = (z + 0.35 * y + 400) % 26;
  if (cage > 0.97 && cage < 1.06 && ribPhase < 9 && Math.abs(x) > 22) value = 480;

  for (const side of [-1, 1]) { // -1: the patient's right
    const dome = -88 + 46 * Math.exp(-(((x - side * 62) / 55) ** 2 + ((y - 5) / 60) ** 2)) + (side < 0 ? 10 : 0);
    const lung = ellipsoid([x, y, z], [side * 66, 2, -10], [54, 78, 142]);
    if (lung > 0 && z > dome) {
      value = -850 + 60 * (y / 80);
      const vessel = Math.sin(x * 0.21 + z * 0.05) * Math.sin(y * 0.19 - z * 0.07) * Math.sin(z * 0.13 + x * 0.04);
      if (vessel > 0.72 && lung > 0.08) value = 30;
      if (side > 0 && z < -40 - 0.2 * (60 - y) && y > 38) value = 8; // fluid at the left base
    } else if (lung > 0 && z <= dome && cage < 0.97) value = side < 0 ? 62 : 40; // below the diaphragm
  }
  if (ellipsoid([x, y, z], [24, -18, -42], [56, 46, 58]) > 0) value = 48; // heart
  if (Math.hypot(x - 22, y - 42) < 12 && z < 70) value = 46; // descending aorta
  if (Math.hypot(x + 16, y + 8) < 14 && z > -20 && z < 74) value = 46; // ascending aorta
  if (Math.hypot(x, y - 20) < 9 && z > 10) value = -1000; // trachea
  if (ellipsoid([x, y, z], [-74, -18, 48], [11, 11, 11]) > 0) value = 40; // nodule, right upper lobe
  return value;
}

const [nx, ny, nz] = DIMS;
const bytes = Buffer.alloc(352 + nx * ny * nz * 2);
bytes.writeInt32LE(348, 0);
[3, ...DIMS, 1, 1, 1, 1].forEach((n, i) => bytes.writeInt16LE(n, 40 + 2 * i));
bytes.writeInt16LE(4, 70); // int16
bytes.writeInt16LE(16, 72);
[1, ...SPACING].forEach((mm, i) => bytes.writeFloatLE(mm, 76 + 4 * i));
bytes.writeFloatLE(352, 108);
bytes.writeFloatLE(1, 112);
bytes.writeUInt8(2, 123); // mm
bytes.writeInt16LE(1, 252);
bytes.writeInt16LE(1, 254);
bytes.writeFloatLE(1, 264); // quaternion (0, 0, 1): half a turn about z, as the rows below
const origin = DIMS.map((n, i) => ((n - 1) / 2) * SPACING[i]);
[origin[0], origin[1], -origin[2]].forEach((mm, i) => bytes.writeFloatLE(mm, 268 + 4 * i));
[[-SPACING[0], 0, 0, origin[0]], [0, -SPACING[1], 0, origin[1]], [0, 0, SPACING[2], -origin[2]]].flat()
  .forEach((v, i) => bytes.writeFloatLE(v, 280 + 4 * i));
bytes.write('n+1\0', 344, 'latin1');

let at = 352;
for (let k = 0; k < nz; k++) {
  for (let j = 0; j < ny; j++) {
    for (let i = 0; i < nx; i++, at += 2) {
      const value = hu([i, j, k].map((n, axis) => (n - (DIMS[axis] - 1) / 2) * SPACING[axis]));
      // Sparse noise keeps the file small.
      const u = noise(i + nx * (j + ny * k));
      const grain = value <= -1000 ? 0 : u < 0.06 ? -24 : u > 0.94 ? 24 : 0;
      bytes.writeInt16LE(value + grain, at);
    }
  }
}
const out = fileURLToPath(new URL('../../www/sample/chest.nii.gz', import.meta.url));
const packed = gzipSync(bytes, { level: 9 });
writeFileSync(out, packed);
console.log(`${DIMS.join(' x ')}, ${packed.length} bytes`);
