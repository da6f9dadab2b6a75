//! One-way dependencies: each module may name only the modules before it, and some words belong to one module alone.

use crate::npy::root;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Bottom to top. `volume`, `text`, `weights` and `rank` are one layer that is written as an order.
const LAYERS: [&str; 11] =
    ["error", "volume", "text", "weights", "rank", "device", "kernel", "model", "session", "js", "cli"];

/// A word, and the beginnings of the paths that may contain it.
const OWNED: [(&str, &[&str]); 10] = [
    ("burn::", &["src/device", "src/kernel", "src/model", "src/session", "src/cli/train"]),
    ("burn_cubecl::", &["src/kernel/gpu"]),
    ("cubecl::", &["src/kernel/gpu"]),
    ("wasm_bindgen", &["src/js.rs"]),
    ("js_sys", &["src/js.rs"]),
    ("web_sys", &["src/js.rs"]),
    ("std::fs", &["src/cli"]),
    ("println!", &["src/cli"]),
    ("nifti::", &["src/volume/header.rs"]),
    ("tokenizers::", &["src/text/tokenizer.rs"]),
];

/// Items of the crate `nifti` that the library must not call (NIFTI_AND_PRIVACY.md 3, N-1).
const FORBIDDEN: [&str; 3] = ["NiftiObject", "NiftiVolume", ".affine::<"];

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder of the project can be listed");
        entries.for_each(|entry| collect(&entry.expect("an entry can be read").path(), files));
    } else if path.extension().is_some_and(|e| e == "rs") {
        files.push(path.to_owned());
    }
}

/// Path relative to the project, and code without comments, of the files below `path`.
fn sources(path: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&root(path), &mut files);
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a source file is text");
        let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let relative = file.strip_prefix(root("")).expect("below the root").to_string_lossy().replace('\\', "/");
        (relative, code.join("\n"))
    };
    files.iter().map(read).collect()
}

fn sources_of(module: &str) -> Vec<(String, String)> {
    let file = format!("src/{module}.rs");
    let mut found = if root(&file).exists() { sources(&file) } else { Vec::new() };
    let folder = format!("src/{module}");
    if root(&folder).exists() {
        found.extend(sources(&folder));
    }
    found
}

#[test]
fn modules_only_look_down() {
    let mut offences = Vec::new();
    for (depth, module) in LAYERS.iter().enumerate() {
        let files = sources_of(module);
        assert!(!files.is_empty(), "no source of module {module}: the list of layers is out of date");
        for (path, text) in files {
            for above in &LAYERS[depth + 1..] {
                if text.contains(&format!("crate::{above}::")) || text.contains(&format!("crate::{above};")) {
                    offences.push(format!("{path} names crate::{above}"));
                }
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn words_stay_where_they_belong() {
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        for (word, homes) in OWNED {
            // `nifti::` must not be found inside `ctmatch::...nifti::`, nor `burn::` inside a longer word.
            let named = text
                .match_indices(word)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !homes.iter().any(|home| path.starts_with(home)) {
                offences.push(format!("{path} names {word}"));
            }
        }
        for word in FORBIDDEN.iter().filter(|word| text.contains(**word)) {
            offences.push(format!("{path} uses {word}"));
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
