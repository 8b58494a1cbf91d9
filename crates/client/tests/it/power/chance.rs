//! Chance that comes out the same each time.

/// SplitMix64, seeded.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// A number from 0 to `most`, that included.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let most = u64::try_from(most).unwrap();
        usize::try_from(z % (most + 1)).unwrap()
    }
}
