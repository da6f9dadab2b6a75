import { options } from './options.js';
import { rankReports } from './rank.js';

const item = (textContent) => Object.assign(document.createElement('li'), { textContent });
const list = document.querySelector('ol');
try {
  const file = await (await fetch('/sample/chest.nii.gz')).blob();
  const texts = (await (await fetch('/sample/reports.json')).json()).map(({ findings }) => findings);
  list.append(...(await rankReports(file, texts, options)).map(({ index }) => item(index)));
} catch (error) {
  list.append(item(`${error.code} ${error.message}`));
}
