//! Scopes (RFC 6749 section 3.3), and which of them to ask for.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};

/// A set of scope tokens in the order in which they were first named.
///
/// Nothing is ever inferred between two tokens (AUTH-53, AUTH-59): `repo` is not read as containing `repo:read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Reads a space-delimited list; what is no scope token (RFC 6749 section 3.3) is left out, as are repetitions.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.split_ascii_whitespace().collect()
    }

    /// Reads a list of tokens, as in `scopes_supported`; an entry that holds several is split.
    #[must_use]
    pub fn from_list<S: AsRef<str>>(list: impl IntoIterator<Item = S>) -> Self {
        let list: Vec<S> = list.into_iter().collect();
        list.iter()
            .flat_map(|entry| entry.as_ref().split_ascii_whitespace())
            .collect()
    }

    /// Joins two sets, this one's tokens first: what a step-up asks for (AUTH-57).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Whether the very token is in the set.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|own| own == scope)
    }

    /// Whether every token of `other` is in this set, whatever the order.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let own: HashSet<&str> = self.iter().collect();
        other.iter().all(|scope| own.contains(scope))
    }

    /// Whether the set has no token; such a set is left out of a request (RFC 6749 section 3.3 has no empty scope).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The tokens, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<'a> FromIterator<&'a str> for Scopes {
    fn from_iter<I: IntoIterator<Item = &'a str>>(tokens: I) -> Self {
        let mut seen = HashSet::new();
        let fits = |token: &&str| is_token(token);
        Self(
            tokens
                .into_iter()
                .filter(fits)
                .filter(|t| seen.insert(*t))
                .map(str::to_owned)
                .collect(),
        )
    }
}

impl fmt::Display for Scopes {
    /// The tokens joined by single spaces, as on the wire; the grammar leaves nothing that a terminal would obey (T-21).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

impl From<Vec<String>> for Scopes {
    fn from(list: Vec<String>) -> Self {
        Self::from_list(list)
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.0
    }
}

/// Chooses the scopes of an authorization request; an empty set means that the request carries no `scope`.
///
/// The first source that names any scope decides alone: what the person `asked` for, else the challenge (AUTH-50,
/// AUTH-54), else all of the resource's `scopes_supported` (AUTH-51), else none (AUTH-52). `offline_access` is appended
/// to them where the authorization server lists it, because without it many issue no refresh token (AUTH-92); it never
/// goes alone, since a request with a scope gets none of the issuer's default ones (RFC 6749 section 3.3); it is never
/// invented (AUTH-93), and one that only the resource's metadata names goes where the authorization server publishes a
/// list without it. A person's or a challenge's own `offline_access` stays: those two are authoritative.
#[must_use]
pub fn select(
    challenged: Option<&Scopes>,
    resource_scopes: Option<&Scopes>,
    asked: Option<&Scopes>,
    server_scopes: Option<&Scopes>,
) -> Scopes {
    let named = |scopes: Option<&Scopes>| scopes.filter(|s| !s.is_empty()).cloned();
    let listed = server_scopes.is_some_and(|s| s.contains(OFFLINE_ACCESS));
    let mut chosen = match named(asked).or_else(|| named(challenged)) {
        Some(scopes) => scopes,
        None => {
            let unlisted = server_scopes.is_some() && !listed;
            let all = named(resource_scopes).unwrap_or_default();
            all.iter()
                .filter(|s| !(unlisted && *s == OFFLINE_ACCESS))
                .collect()
        }
    };
    if listed && !chosen.is_empty() && !chosen.contains(OFFLINE_ACCESS) {
        chosen.0.push(OFFLINE_ACCESS.to_owned());
    }
    chosen
}

/// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// The scope that asks for a refresh token (OpenID Connect Core section 11).
pub const OFFLINE_ACCESS: &str = "offline_access";

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Scopes {
        Scopes::parse(text)
    }

    fn chosen(
        challenged: Option<&str>,
        resource: Option<&str>,
        asked: Option<&str>,
        server: Option<&str>,
    ) -> String {
        let [c, r, a, s] = [challenged, resource, asked, server].map(|text| text.map(set));
        select(c.as_ref(), r.as_ref(), a.as_ref(), s.as_ref()).to_string()
    }

    /// AUTH-50, AUTH-51, AUTH-52: asked, else challenged, else supported, else nothing at all.
    #[test]
    fn the_first_source_that_names_scopes_decides_alone() {
        assert_eq!(chosen(Some("c"), Some("r"), Some("a"), None), "a");
        assert_eq!(chosen(Some("c"), Some("r"), None, None), "c");
        assert_eq!(chosen(None, Some("r1 r2"), None, Some("s")), "r1 r2");
        assert_eq!(chosen(None, None, None, Some("openid email")), "");
        assert_eq!(
            chosen(Some(""), Some("r"), Some(""), None),
            "r",
            "an empty source is none"
        );
    }

    /// AUTH-53: a challenged scope that nobody lists is asked for all the same.
    #[test]
    fn no_relation_to_the_supported_scopes_is_assumed() {
        assert_eq!(
            chosen(
                Some("files:write"),
                Some("files:read"),
                None,
                Some("files:read")
            ),
            "files:write"
        );
    }

    /// AUTH-92, AUTH-93: `offline_access` goes along where the authorization server lists it, and only there.
    #[test]
    fn offline_access_follows_the_authorization_server() {
        let listing = Some("a offline_access");
        assert_eq!(chosen(Some("c"), None, None, listing), "c offline_access");
        assert_eq!(
            chosen(None, None, Some("offline_access x"), listing),
            "offline_access x"
        );
        assert_eq!(
            chosen(None, None, None, listing),
            "",
            "never alone: the issuer's default scopes stay"
        );
        assert_eq!(chosen(Some("c"), None, None, Some("a")), "c");
        assert_eq!(chosen(Some("c"), None, None, None), "c");
        assert_eq!(chosen(None, Some("r offline_access"), None, Some("r")), "r");
        assert_eq!(
            chosen(None, Some("r offline_access"), None, None),
            "r offline_access"
        );
        assert_eq!(
            chosen(Some("c offline_access"), None, None, Some("c")),
            "c offline_access"
        );
    }

    /// AUTH-57: a step-up asks for what it had and for what is missing, once each.
    #[test]
    fn a_union_keeps_the_order_and_repeats_nothing() {
        assert_eq!(set("b a").union(&set("c a d")).to_string(), "b a c d");
        assert!(set("b a").covers(&set("a b")) && !set("a").covers(&set("a b")));
    }

    /// T-21: what is no scope token cannot get in, so no terminal sequence can get out.
    #[test]
    fn what_is_no_token_is_left_out() {
        assert_eq!(
            set("a\u{1b}[2J b\"c d\\e \u{202e}x ok  ok\tlast").to_string(),
            "ok last"
        );
        let list: Scopes = serde_json::from_str(r#"["a","","b c","a","\u0000"]"#).unwrap();
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["a","b","c"]"#);
    }

    /// T-22: repetitions are found in linear time, however long the list.
    #[test]
    fn a_very_long_list_is_read_at_once() {
        let text: String = (0..200_000).map(|i| format!("s{i} ")).collect();
        assert_eq!(set(&text).union(&set(&text)).len(), 200_000);
    }
}
