//! Writes the seeds of every target below the folder that it is given: the suite's synthetic files, and a few texts.

#[path = "../suite/synthetic_files.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod synthetic_files;
#[path = "../suite/synthetic_models.rs"]
mod synthetic_models;
#[path = "../suite/torch_files.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod torch_files;

// Instrumented as the targets are, it needs the functions that count.
use libfuzzer_sys as _;
use std::fs;
use std::path::PathBuf;

/// What reports and sidecars look like.
const TEXTS: [(&str, &str); 6] = [
    ("report.txt", "Dr. Smith, MD: nodule of 12 mm, unchanged since 6 May 2023.\n---\n患者姓名：张三，住院号 8891"),
    ("report.json", r#"[{"id": "v1", "findings": "No effusion.", "impression": "Not given."}, "Text"]"#),
    ("report.jsonl", "{\"text\": \"Nodule.\", \"label\": true}\n\"MRN: 4471\""),
    ("report.csv", "VolumeName,Findings_EN,Impressions_EN\nv1,\"a, \"\"b\"\"\",c\r\n"),
    (
        "patients.csv",
        "VolumeName,PatientAge,PatientSex,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\nv1,045Y,F,1,-1024,\"[0.7, 0.7]\",1",
    ),
    ("sidecar.json", r#"{"PatientName": "DOE^JANE", "AcquisitionDateTime": "2023-05-06T10:00", "n": [1.5, 20230506]}"#),
];

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds FOLDER"));
    for target in ["header", "gzip", "privacy"] {
        let folder = root.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in synthetic_files::files() {
            fs::write(folder.join(name), bytes)?;
        }
    }
    TEXTS.iter().try_for_each(|(name, text)| fs::write(root.join("privacy").join(name), text))?;
    synthetic_models::files().into_iter().try_for_each(|(name, bytes)| {
        let folder = root.join("model");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    })
}
