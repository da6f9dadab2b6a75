//! Texts in batches, each text once per session.

use super::Progress;
use super::Session;
use super::TextEncoding;
use crate::error::Result;
use crate::model::stages::Stages;
use crate::rank;
use crate::rank::Latent;
use crate::text::TokenIds;
use crate::text::reports::ReportView;
use crate::text::sentences::sentences;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;

/// Latents that a session keeps: 40 MB at 512 numbers each.
const CACHE_ENTRIES: usize = 20_000;

/// Texts tokenized between two points where a call can stop: some ten milliseconds in a browser.
const TOKENIZED_AT_ONCE: usize = 16;

/// SHA-256 of the token ids: texts that the tokenizer does not tell apart are one text.
type Key = [u8; 32];

fn key(tokens: &TokenIds) -> Key {
    let mut hasher = Sha256::new();
    tokens.ids.iter().for_each(|id| hasher.update(id.to_le_bytes()));
    hasher.finalize().into()
}

/// Latents by token ids; the oldest gives way.
#[derive(Debug, Default)]
pub(super) struct TextCache {
    latents: HashMap<Key, Latent>,
    order: VecDeque<Key>,
}

impl TextCache {
    fn insert(&mut self, key: Key, latent: Latent) {
        if self.latents.insert(key, latent).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > CACHE_ENTRIES {
            self.order.pop_front().and_then(|oldest| self.latents.remove(&oldest));
        }
    }
}

fn lock(texts: &Mutex<TextCache>) -> MutexGuard<'_, TextCache> {
    // A panic between two insertions leaves a latent too many or too few, never a wrong one.
    texts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Session {
    /// Encodes a text: [`Session::encode_texts`] of one.
    ///
    /// # Errors
    /// As [`Session::encode_texts`].
    pub async fn encode_text(&self, text: &str, pace: impl AsyncFnMut(Progress) -> Result<()>) -> Result<TextEncoding> {
        Ok(self.encode_texts(&[text], pace).await?.remove(0))
    }

    /// Encodes the texts of a view: as [`Session::encode_texts`], but for [`ReportView::Sentences`], where the latent is the mean of those
    /// of the sentences, scaled to length 1, their tokens are added up, and one that was cut off or is new makes the whole so.
    ///
    /// # Errors
    /// As [`Session::encode_texts`].
    pub async fn encode_in_view<T: AsRef<str>>(
        &self,
        texts: &[T],
        view: ReportView,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<TextEncoding>> {
        if view != ReportView::Sentences {
            return self.encode_texts(texts, pace).await;
        }
        let parts: Vec<Vec<&str>> = texts
            .iter()
            .map(AsRef::as_ref)
            .map(|text| sentences(text).into_iter().map(|range| &text[range]).collect())
            .collect();
        let encoded = self.encode_texts(&parts.concat(), pace).await?;
        let mut rest = &encoded[..];
        let combined = parts.iter().map(|parts| {
            let (own, others) = rest.split_at(parts.len());
            rest = others;
            Ok(TextEncoding {
                latent: rank::mean(&own.iter().map(|part| part.latent.clone()).collect::<Vec<_>>())?,
                tokens: own.iter().map(|part| part.tokens).sum(),
                truncated: own.iter().any(|part| part.truncated),
                cached: own.iter().all(|part| part.cached),
            })
        });
        combined.collect()
    }

    /// Encodes texts at their own length, because padding would not change the result (CTCLIP.md 5): up to 512 tokens together,
    /// and none that this session has encoded already. An aborted call keeps the batches that it finished.
    ///
    /// # Errors
    /// [`Error::Purpose`](crate::Error::Purpose) without a text tower, [`Error::TextInput`](crate::Error::TextInput),
    /// [`Error::BadResult`](crate::Error::BadResult), errors of the device, and whatever `pace` returns.
    pub async fn encode_texts<T: AsRef<str>>(
        &self,
        texts: &[T],
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<TextEncoding>> {
        let tower = self.text_tower()?;
        let mut tokens = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            tokens.push(self.tokenize(text.as_ref())?);
            if (i + 1).is_multiple_of(TOKENIZED_AT_ONCE) {
                pace(Progress { phase: super::Phase::Text, done: 0, total: texts.len() }).await?;
            }
        }
        let keys: Vec<Key> = tokens.iter().map(key).collect();

        let mut latents: HashMap<Key, Latent> = HashMap::new();
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for (i, key) in keys.iter().enumerate().filter(|(_, key)| seen.insert(**key)) {
            match lock(&self.texts).latents.get(key) {
                Some(latent) => drop(latents.insert(*key, latent.clone())),
                None => by_length.entry(tokens[i].ids.len()).or_default().push(i),
            }
        }
        // From short to long, so that neighbours are equally long.
        let waiting: Vec<usize> = by_length.into_values().flatten().collect();
        let lengths: Vec<usize> = waiting.iter().map(|&i| tokens[i].ids.len()).collect();
        let batches = tower.batches(&lengths);

        let total = batches.len() * tower.depth();
        for (number, range) in batches.into_iter().enumerate() {
            let (batch, lengths) = (&waiting[range.clone()], &lengths[range]);
            let ids: Vec<u32> = batch.iter().flat_map(|&i| &tokens[i].ids).copied().collect();
            let first = number * tower.depth();
            let step =
                async |progress: Progress| pace(Progress { done: first + progress.done, total, ..progress }).await;
            let found = self.encode_sequences(&ids, lengths, None, &mut Stages::off(), step).await?;
            let mut cache = lock(&self.texts);
            for (&i, latent) in batch.iter().zip(found) {
                cache.insert(keys[i], latent.clone());
                latents.insert(keys[i], latent);
            }
        }
        let encoded: HashSet<usize> = waiting.into_iter().collect();
        let encodings = keys.iter().zip(&tokens).enumerate().map(|(i, (key, tokens))| TextEncoding {
            latent: latents[key].clone(),
            tokens: tokens.ids.len(),
            truncated: tokens.truncated,
            cached: !encoded.contains(&i),
        });
        Ok(encodings.collect())
    }
}
