//! Reading costs little more than unpacking: a ratio within one run, because shared machines have no steady clock.

use ctmatch::volume::Image;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::time::Instant;

/// Least speed of reading relative to gzip decoding alone of the same file.
const LEAST: f64 = 0.8;

/// A body of soft tissue with noise in its low bits: it packs about as a CT does (2.3 : 1).
fn file() -> Vec<u8> {
    let dims = [256, 256, 64];
    let mut state = 1u32;
    let voxels: Vec<i16> = (0..dims.iter().product())
        .map(|at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (i, j) = ((at % 256) as i32 - 128, (at / 256 % 256) as i32 - 128);
            let noise = (state >> 26) as i16;
            if i * i + j * j < 110 * 110 { 40 + noise } else { -1000 }
        })
        .collect();
    Image::lps(&voxels, dims, [0.75, 0.75, 1.5]).unwrap().to_nii_gz()
}

#[test]
fn reading_keeps_most_of_the_speed_of_unpacking() {
    let file = file();
    let mut buffer = vec![0; 256 << 10];
    let mut unpack = || {
        let start = Instant::now();
        let mut decoder = MultiGzDecoder::new(&file[..]);
        while decoder.read(&mut buffer).unwrap() > 0 {}
        start.elapsed().as_secs_f64()
    };
    let read = || {
        let start = Instant::now();
        let mut reader = Reader::new(ReadOptions::default());
        file.chunks(1 << 20).for_each(|chunk| reader.push(chunk).unwrap());
        assert_eq!(reader.finish().unwrap().dims(), [256, 256, 64]);
        start.elapsed().as_secs_f64()
    };
    let (mut unpacking, mut reading) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..7 {
        unpacking = unpacking.min(unpack());
        reading = reading.min(read());
    }
    let ratio = unpacking / reading;
    println!("{} bytes packed: unpacking {unpacking:.3} s, reading {reading:.3} s, ratio {ratio:.2}", file.len());
    assert!(ratio >= LEAST, "{ratio:.2}");
}
