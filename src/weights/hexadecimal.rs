//! Numbers as their bytes in hexadecimal digits: exact, and one line in a manifest that people read.

use bytemuck::Pod;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serializer;
use serde::de::Error;

pub(super) fn serialize<T: Pod, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    let digits: String = bytemuck::cast_slice(values).iter().map(|byte: &u8| format!("{byte:02x}")).collect();
    to.serialize_str(&digits)
}

pub(super) fn deserialize<'de, T: Pod, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let digits = String::deserialize(from)?;
    let wrong = || D::Error::custom(format!("expected numbers of {} hexadecimal digits", 2 * size_of::<T>()));
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|&[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8)).collect();
    let bytes =
        bytes.filter(|bytes| rest.is_empty() && bytes.len().is_multiple_of(size_of::<T>())).ok_or_else(wrong)?;
    Ok(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}
