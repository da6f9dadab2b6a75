//! Random numbers and angles that are the same on every machine: integers, and floats by basic operations only.
//!
//! SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"). Each use has its own named stream, so
//! that drawing more in one leaves the others as they are. Nothing here comes from the platform's mathematics library.

/// The increment of SplitMix64: 2⁶⁴ divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// One stream.
#[derive(Debug, Clone)]
pub struct Rng(u64);

/// The finalizer of SplitMix64: spreads the bits of a counter.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Four 16-bit lanes added: mean 0, variance 1, within ±3.5. Enough of a bell for noise.
pub fn bell(bits: u64) -> f32 {
    let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
    // Variance of the sum is 4 · 65536² / 12.
    (sum as f32 - 131_070.0) * (1.0 / 37_837.2)
}

impl Rng {
    /// The stream of that name under a seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        // FNV-1a of the name.
        let name = stream
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        Rng(mix(mix(seed.wrapping_add(STEP)) ^ name))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform between two numbers.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`; 0 for `n` = 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The bias is below n / 2⁴⁰.
        ((u128::from(self.bits() >> 24) * n as u128) >> 40) as usize
    }

    /// A whole number from `low` to `high`, both included.
    pub fn whole(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True with a probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Mean 0, variance 1.
    pub fn normal(&mut self) -> f32 {
        bell(self.bits())
    }

    /// One of the elements.
    ///
    /// # Panics
    /// For an empty slice.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Any order, each as likely.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

/// Sine and cosine of an angle in degrees, -360..=360.
pub fn sin_cos(degrees: f32) -> [f32; 2] {
    // Taylor series to x¹³ within ±90°: error below 1e-8.
    fn sine(degrees: f64) -> f64 {
        let folded = if degrees > 270.0 {
            degrees - 360.0
        } else if degrees > 90.0 {
            180.0 - degrees
        } else if degrees < -270.0 {
            degrees + 360.0
        } else if degrees < -90.0 {
            -180.0 - degrees
        } else {
            degrees
        };
        let x = folded * (std::f64::consts::PI / 180.0);
        let square = x * x;
        let mut term = x;
        let mut sum = x;
        for n in [2.0, 4.0, 6.0, 8.0, 10.0, 12.0] {
            term *= -square / (n * (n + 1.0));
            sum += term;
        }
        sum
    }
    let degrees = f64::from(degrees);
    let turned = if degrees > 0.0 { degrees - 270.0 } else { degrees + 90.0 };
    [sine(degrees) as f32, sine(turned) as f32]
}
