//! What things are looked up by: keyed hashes, so that a stored id tells nobody which server or account it is for.

use hmac::{Hmac, KeyInit, Mac};
use pilotlight_core::{
    credential::{BindingId, BindingKey, CredentialId, CredentialKey},
    issuer::Issuer,
};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The key of the hashes.
pub(super) struct Lookup(Zeroizing<[u8; 32]>);

impl Lookup {
    pub(super) fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    pub(super) fn credential(&self, key: &CredentialKey) -> CredentialId {
        let parts = [
            key.tenant.as_str(),
            key.resource.canonical(),
            key.issuer.as_str(),
            key.account.as_str(),
        ];
        CredentialId(self.hash("credential", &parts))
    }

    pub(super) fn binding(&self, key: &BindingKey) -> BindingId {
        BindingId(self.hash(
            "binding",
            &[&key.tenant, key.url.canonical(), key.account.as_str()],
        ))
    }

    pub(super) fn issuer(&self, issuer: &Issuer) -> [u8; 32] {
        self.hash("issuer", &[issuer.as_str()])
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn name(&self, name: &str) -> [u8; 32] {
        self.hash("name", &[name])
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn client(&self, issuer: &Issuer, client_id: &str) -> [u8; 32] {
        self.hash("client", &[issuer.as_str(), client_id])
    }

    fn hash(&self, domain: &str, parts: &[&str]) -> [u8; 32] {
        let mut mac = hmac(&self.0);
        for part in std::iter::once(&domain).chain(parts) {
            framed(&mut mac, part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup([redacted])")
    }
}

/// HMAC-SHA256 under a key.
#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
pub(super) fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// Adds a field behind its length, so that no two lists of fields give the same bytes.
pub(super) fn framed(mac: &mut Hmac<Sha256>, field: &[u8]) {
    mac.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
    mac.update(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_core::{credential::Account, resource::Resource};

    /// DESIGN.md section 4: look-up is by keyed hash, one domain a kind, and equal resources share it.
    #[test]
    fn ids_are_keyed_and_apart() {
        let (one, two) = (
            Lookup::new(Zeroizing::new([1; 32])),
            Lookup::new(Zeroizing::new([2; 32])),
        );
        let key = |url: &str| BindingKey::new(Resource::parse(url).unwrap(), Account::default());
        assert_eq!(
            one.binding(&key("https://mcp.example/")),
            one.binding(&key("https://MCP.example:443"))
        );
        assert_ne!(
            one.binding(&key("https://mcp.example/")),
            one.binding(&key("https://mcp.example/a"))
        );
        assert_ne!(
            one.binding(&key("https://mcp.example/")),
            two.binding(&key("https://mcp.example/"))
        );
        assert_ne!(
            one.hash("name", &["ab", "c"]),
            one.hash("name", &["a", "bc"])
        );
        assert_ne!(one.hash("name", &["a"]), one.hash("issuer", &["a"]));
    }
}
