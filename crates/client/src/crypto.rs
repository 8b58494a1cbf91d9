//! The one place that draws random bytes.

/// Draws `N` random bytes from the operating system.
///
/// # Panics
/// Never in practice: a machine whose kernel gives no random bytes cannot run anything that needs a secret, and going on
/// with predictable ones would be worse than stopping.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "the one door to randomness; see Panics"
)]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Draws a number uniform in `0.0..1.0`.
#[must_use]
pub fn draw() -> f64 {
    let bytes: [u8; 4] = random();
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
