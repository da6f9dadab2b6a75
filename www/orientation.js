// The order of a file's axes, from its letters.

/** Which stored axis runs along the patient's left, posterior and superior, from 1; negative when it runs the other way. @param {string} orientation as LPS */
export const permutation = (orientation) => ['LR', 'PA', 'SI'].map(([along, back]) =>
  (orientation.includes(along) ? orientation.indexOf(along) + 1 : -(orientation.indexOf(back) + 1)));
