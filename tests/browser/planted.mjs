// A volume with an invented identifier in every place that can hold one.

import { gzipSync, sampleNifti } from './harness.mjs';

// One token for each place, so that a leak names its source. Made up.
export const PLANTED = { fileName: '4710001', descrip: '4720002', auxFile: '4730003', extension: '4740004', gzip: '4750005', report: '4760006' };
export const FILE_NAME = `MRN${PLANTED.fileName}_20230506.nii.gz`;
export const inFile = Object.entries(PLANTED).filter(([place]) => place !== 'report').map(([, token]) => token);
export const found = (content, tokens = Object.values(PLANTED)) => tokens.filter((token) => content.includes(token));

/** The sample with a token in every place of a file that can hold text, and with its values raised by `offset`. */
export async function plantedFile({ offset = 0 } = {}) {
  const nifti = await sampleNifti();
  const header = Buffer.from(nifti.subarray(0, 352));
  const voxels = Buffer.from(nifti.subarray(352));
  for (let at = 0; offset && at < voxels.length; at += 2) voxels.writeInt16LE(voxels.readInt16LE(at) + offset, at);
  header.write(`PatientID ${PLANTED.descrip}`, 148, 'latin1');
  header.write(`ACC${PLANTED.auxFile}`, 228, 'latin1');
  const extension = Buffer.alloc(64);
  extension.writeInt32LE(64, 0);
  extension.writeInt32LE(6, 4); // a comment
  extension.write(`Planted^Patient MRN ${PLANTED.extension}`, 8, 'latin1');
  header[348] = 1;
  header.writeFloatLE(352 + extension.length, 108);
  const packed = gzipSync(Buffer.concat([header, extension, voxels]));
  packed[3] |= 8; // FNAME
  return { voxels, bytes: Buffer.concat([packed.subarray(0, 10), Buffer.from(`id_${PLANTED.gzip}.nii\0`, 'latin1'), packed.subarray(10)]) };
}
