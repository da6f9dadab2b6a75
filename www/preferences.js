// What a person prefers, kept in this browser until everything is cleared. The page of stored data reads it too.

import { currentLanguage } from './i18n.js';

export const LANGUAGE = 'ctmatch-language';
export const THEME = 'ctmatch-theme';
/** Address of the model of this site that was chosen last. */
export const MODEL = 'ctmatch-model';

/** Storage can be forbidden; the page works without. @param {string} key */
export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
export function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // asked again the next time
  }
}

/** The one that was chosen, else the browser's. @returns {'en' | 'zh'} */
export function keptLanguage() {
  const kept = recall(LANGUAGE);
  return kept === 'en' || kept === 'zh' ? kept : currentLanguage();
}

/** @param {string} [theme] the one that was chosen, else the dark one */
export function wear(theme = recall(THEME) ?? 'dark') {
  document.documentElement.dataset.theme = theme;
  return theme;
}
