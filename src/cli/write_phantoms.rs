//! `ctmatch phantom`: synthetic chest CT volumes, with the tables that CT-RATE has and the truth about every lesion.

use super::Global;
use super::files;
use super::output;
use super::phantom::Config;
use super::phantom::Phantom;
use super::phantom::generate;
use super::phantom::plan::Choice;
use super::phantom::report::changed_reports;
use super::phantom::spacing_mm;
use super::phantom::truth::FINDINGS;
use super::phantom::vocabulary::vocabulary;
use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use ctmatch::volume::Image;
use serde_json::Value;
use serde_json::json;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;

/// Painting a volume of this size takes 1.3 GB.
const MAX_SIZE: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print a WordPiece vocabulary for these reports, and do nothing else
    #[arg(long, exclusive = true)]
    vocabulary: bool,
    /// First seed
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Number of phantoms, with seeds that follow
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Folder for phantom_SEED.nii.gz, reports.jsonl, labels.csv and truth.json
    #[arg(long, value_name = "DIR", required_unless_present = "vocabulary")]
    out: Option<PathBuf>,
    /// Voxels along each axis, or to the left, to the back and up
    #[arg(long, value_name = "N|I,J,K", default_value = "128", value_parser = sizes)]
    size: [usize; 3],
    /// Voxel spacing in mm, one number or three; without it 360 mm are covered
    #[arg(long, value_name = "MM|X,Y,Z", value_parser = spacings)]
    spacing: Option<[f64; 3]>,
    /// These findings and no others, by their names in CT-RATE; without it and --random none
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = finding, conflicts_with = "random")]
    findings: Vec<usize>,
    /// Findings by chance; pairs that go together in patients do so here
    #[arg(long)]
    random: bool,
    /// Probability of each finding
    #[arg(long, value_name = "P", default_value = "0.25", value_parser = probability, requires = "random")]
    prevalence: f32,
    /// Also write a mask of the voxels that each finding changed, phantom_SEED_mask_N.nii.gz; N counts the findings from 0
    #[arg(long)]
    masks: bool,
    /// Also write so many wrong reports of each phantom, which differ in one fact, to negatives.jsonl
    #[arg(long, value_name = "N", default_value = "0")]
    negatives: usize,
}

fn finding(name: &str) -> Result<usize, String> {
    let found = FINDINGS.iter().position(|finding| finding.eq_ignore_ascii_case(name.trim()));
    found.ok_or_else(|| format!("expected one of {}", FINDINGS.join(", ")))
}

/// One number for all axes, or three.
fn three<T: Copy + PartialOrd + std::str::FromStr>(text: &str, range: RangeInclusive<T>) -> Option<[T; 3]> {
    let numbers: Option<Vec<T>> =
        text.split(',').map(|n| n.trim().parse().ok().filter(|n| range.contains(n))).collect();
    match numbers?[..] {
        [all] => Some([all; 3]),
        [i, j, k] => Some([i, j, k]),
        _ => None,
    }
}

fn sizes(text: &str) -> Result<[usize; 3], String> {
    three(text, 16..=MAX_SIZE).ok_or_else(|| format!("expected one number or three from 16 to {MAX_SIZE}"))
}

fn spacings(text: &str) -> Result<[f64; 3], String> {
    three(text, 0.1..=20.0).ok_or_else(|| "expected one number or three from 0.1 to 20 mm".into())
}

fn probability(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| "expected a number from 0 to 1".into())
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let Some(out) = &arguments.out else {
        return output::line(vocabulary().trim_end());
    };
    let mut labels = [false; FINDINGS.len()];
    arguments.findings.iter().for_each(|&finding| labels[finding] = true);
    let choice = if arguments.random {
        Choice::Random { prevalence: arguments.prevalence, related: true }
    } else {
        Choice::These(labels)
    };
    let spacing_mm = arguments.spacing.unwrap_or_else(|| arguments.size.map(spacing_mm));
    let config = Config { dims: arguments.size, spacing_mm, choice, ..Config::default() };
    ensure!(arguments.seed.checked_add(arguments.count).is_some(), "the seeds must stay below 2^64");
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut reports = String::new();
    let mut table = format!("VolumeName,{}\n", FINDINGS.join(","));
    let mut truths = Vec::new();
    let mut negatives = String::new();
    let bar = output::bar(global, "phantom", false);
    bar.set_length(arguments.count);
    for seed in arguments.seed..arguments.seed + arguments.count {
        let phantom = generate(seed, &config);
        let name = phantom.name();
        files::write(&out.join(&name), &phantom.image()?.to_nii_gz())?;
        if arguments.masks {
            write_masks(&phantom, out)?;
        }
        writeln!(reports, "{}", report(&phantom))?;
        let row = phantom.plan.present.map(|present| if present { ",1" } else { ",0" });
        writeln!(table, "{name}{}", row.concat())?;
        truths.push(truth(&phantom));
        for wrong in changed_reports(seed, &phantom.plan, arguments.negatives) {
            let line = json!({ "id": name, "edit": wrong.edit, "finding": FINDINGS[wrong.finding],
                "findings": wrong.report.findings, "impression": wrong.report.impression });
            writeln!(negatives, "{line}")?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    files::write(&out.join("reports.jsonl"), reports.as_bytes())?;
    files::write(&out.join("labels.csv"), table.as_bytes())?;
    files::write(&out.join("truth.json"), format!("{:#}\n", Value::from(truths)).as_bytes())?;
    if arguments.negatives > 0 {
        files::write(&out.join("negatives.jsonl"), negatives.as_bytes())?;
    }
    if global.json {
        output::line(json!({ "phantoms": arguments.count, "out": out.display().to_string() }))?;
    }
    Ok(())
}

fn write_masks(phantom: &Phantom, out: &Path) -> Result<()> {
    for finding in (0..FINDINGS.len()).filter(|&finding| phantom.plan.present[finding]) {
        let mask: Vec<i16> = phantom.marks.iter().map(|bits| (bits >> finding & 1) as i16).collect();
        let file = Image::new(&mask, phantom.dims, phantom.affine())?.to_nii_gz();
        files::write(&out.join(format!("phantom_{}_mask_{finding}.nii.gz", phantom.seed)), &file)?;
    }
    Ok(())
}

fn report(phantom: &Phantom) -> Value {
    json!({ "id": phantom.name(), "findings": phantom.report.findings, "impression": phantom.report.impression,
        "metadata": { "age": phantom.age, "sex": phantom.sex } })
}

fn truth(phantom: &Phantom) -> Value {
    let present = (0..FINDINGS.len()).filter(|&finding| phantom.plan.present[finding]);
    let findings = present.map(|finding| {
        let mut entry = json!(phantom.plan.attributes[finding]);
        entry["finding"] = FINDINGS[finding].into();
        entry
    });
    let lesions = phantom.lesions.iter().map(|lesion| {
        let extent = [0, 1, 2].map(|n| (lesion.high[n] - lesion.low[n] + 1) as f64 * phantom.spacing_mm[n]);
        json!({ "finding": FINDINGS[lesion.finding], "side": lesion.side, "lobe": lesion.lobe, "voxels": lesion.voxels,
            "centreVoxel": lesion.centre, "lowVoxel": lesion.low, "highVoxel": lesion.high,
            "centreMm": phantom.world_mm(lesion.centre), "extentMm": extent })
    });
    json!({ "id": phantom.name(), "seed": phantom.seed, "age": phantom.age, "sex": phantom.sex, "dims": phantom.dims,
        "spacingMm": phantom.spacing_mm, "findings": findings.collect::<Vec<_>>(), "lesions": lesions.collect::<Vec<_>>() })
}
