'use client';

import { useEffect, useState } from 'react';
import { useRanking } from './use-ranking.jsx';

const OPTIONS = { model: '/model/manifest.json', backend: 'cpu' };

export default function Page() {
  const [{ file, texts }, setSample] = useState({});
  useEffect(() => {
    Promise.all([fetch('/sample/chest.nii.gz').then((r) => r.blob()), fetch('/sample/reports.json').then((r) => r.json())])
      .then(([blob, reports]) => setSample({ file: blob, texts: reports.map(({ findings }) => findings) }));
  }, []);
  const { rows = [], error } = useRanking(file, texts, OPTIONS);
  return <ol>{error ? <li>{`${error.code} ${error.message}`}</li> : rows.map(({ index }) => <li key={index}>{index}</li>)}</ol>;
}
