//! Stores as Parquet, for DuckDB, Spark, Ray or a vector database: one row per latent.

use anyhow::Result;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Store;
use parquet::basic::Compression;
use parquet::data_type::ByteArray;
use parquet::data_type::ByteArrayType;
use parquet::data_type::FloatType;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::sync::Arc;

/// Latents as f32: no engine reads lists of f16 without help.
const SCHEMA: &str = "message ctmatch {
    required binary kind (STRING);
    required binary id (STRING);
    required binary sha256 (STRING);
    required group latent (LIST) { repeated group list { required float element; } }
}";

/// The rows of a store: volumes, then reports. The model and the view are in the file's metadata, under the keys of the store itself.
pub(crate) fn to_bytes(store: &Store) -> Result<Vec<u8>> {
    let mut metadata = vec![KeyValue::new("model".into(), serde_json::to_string(store.model())?)];
    metadata.extend(store.view().map(|view| KeyValue::new("view".into(), view.to_owned())));
    let properties = WriterProperties::builder()
        // What is compressed takes a codec, and latents do not get smaller.
        .set_compression(Compression::UNCOMPRESSED)
        .set_key_value_metadata(Some(metadata))
        .build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties))?;
    let kinds = [(Kind::Volume, "volume"), (Kind::Report, "report")];
    let entries = || kinds.iter().flat_map(|(kind, name)| store.entries(*kind).iter().map(move |entry| (*name, entry)));
    let columns: [Vec<ByteArray>; 3] = [
        entries().map(|(kind, _)| kind.into()).collect(),
        entries().map(|(_, entry)| entry.id.as_str().into()).collect(),
        entries().map(|(_, entry)| entry.sha256.as_str().into()).collect(),
    ];
    let latents = || kinds.iter().flat_map(|(kind, _)| store.latents(*kind));
    let values: Vec<f32> = latents().flat_map(|latent| latent.as_slice()).copied().collect();
    // 0 starts a list, 1 goes on with it.
    let repetition: Vec<i16> =
        latents().flat_map(|latent| (0..latent.as_slice().len()).map(|at| i16::from(at > 0))).collect();

    let mut rows = file.next_row_group()?;
    for column in &columns {
        let mut writer = rows.next_column()?.expect("the schema has this column");
        writer.typed::<ByteArrayType>().write_batch(column, None, None)?;
        writer.close()?;
    }
    let mut writer = rows.next_column()?.expect("the schema has this column");
    writer.typed::<FloatType>().write_batch(&values, Some(&vec![1; values.len()]), Some(&repetition))?;
    writer.close()?;
    rows.close()?;
    file.close()?;
    Ok(bytes)
}
