//! Peak memory while reading: the voxels and a few MiB (N-16).

use crate::allocation::most_held;
use ctmatch::volume::Image;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;

#[test]
fn reading_holds_the_voxels_and_little_more() {
    let dims = [256, 256, 128];
    let voxels: Vec<i16> = (0..256 * 256 * 128).map(|n| (n % 2003 - 1000) as i16).collect();
    let image = Image::lps(&voxels, dims, [0.7, 0.7, 1.0]).unwrap();
    for file in [image.to_nii(), image.to_nii_gz()] {
        let (volume, most) = most_held(|| {
            let mut reader = Reader::new(ReadOptions::default());
            file.chunks(1 << 20).for_each(|chunk| reader.push(chunk).unwrap());
            reader.finish().unwrap()
        });
        assert_eq!(volume.stored_voxels().len(), voxels.len());
        let beyond = most - 2 * voxels.len();
        assert!(beyond < 2 << 20, "{beyond} bytes beyond the voxels");
    }
}
