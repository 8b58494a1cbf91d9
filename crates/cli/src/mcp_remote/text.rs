//! Text as a JavaScript program reads it: numbers, white space, header lines, `${NAME}`.

use super::Parameter;

/// What counts as white space there.
pub(super) fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t'..='\r'
            | ' '
            | '\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
            | '\u{feff}'
    )
}

/// The text without white space around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A whole number at the beginning of a text, whatever follows it; with `0x` in hexadecimal, where that is looked for.
pub(super) fn whole_number(text: &str, hexadecimal: bool) -> Option<i64> {
    let text = text.trim_start_matches(is_space);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = ["0x", "0X"].iter().find_map(|head| text.strip_prefix(head));
    let (radix, digits) = match hex {
        Some(digits) if hexadecimal => (16, digits),
        _ => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix));
    let digits = &digits[..end.unwrap_or(digits.len())];
    let number = match i64::from_str_radix(digits, radix) {
        Ok(number) => number,
        Err(_) if digits.is_empty() => return None,
        Err(_) => i64::MAX,
    };
    Some(if negative { -number } else { number })
}

/// A number that is the whole of a text; an empty one counts as 0.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = trimmed(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let bases = [
        ("0x", 16),
        ("0X", 16),
        ("0o", 8),
        ("0O", 8),
        ("0b", 2),
        ("0B", 2),
    ];
    for (head, radix) in bases {
        if let Some(digits) = text.strip_prefix(head) {
            let plain = digits.chars().all(|c| c.is_digit(radix));
            let number = u64::from_str_radix(digits, radix).ok().filter(|_| plain);
            return number.map(|number| number as f64);
        }
    }
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let number: f64 = text.parse().ok().filter(|_| text.chars().all(plain))?;
    number.is_finite().then_some(number)
}

/// A header line, `Name: value`.
pub(super) fn header(line: &str) -> Option<Parameter> {
    let (name, value) = line.split_once(':')?;
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let value = value.trim_start_matches(is_space);
    let ends_line = |c| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
    if name.is_empty() || !name.chars().all(in_name) || value.contains(ends_line) {
        return None;
    }
    Some(Parameter {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// Puts a member in: a later one of the same name takes the place of the earlier.
pub(super) fn put(members: &mut Vec<Parameter>, new: Parameter) {
    match members.iter_mut().find(|one| one.name == new.name) {
        Some(one) => one.value = new.value,
        None => members.push(new),
    }
}

/// Replaces each `${NAME}` by what the environment says; where it says nothing, the text stays and the name is told.
pub(super) fn expand(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
    mut missing: impl FnMut(&str),
) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        done.push_str(before);
        let inside = &after[2..];
        match inside.find('}') {
            Some(0) | None => {
                done.push_str("${");
                rest = inside;
            }
            Some(end) => {
                let name = &inside[..end];
                match variable(name) {
                    Some(value) => done.push_str(&value),
                    None => {
                        missing(name);
                        done.push_str(&after[..end + 3]);
                    }
                }
                rest = &inside[end + 1..];
            }
        }
    }
    done.push_str(rest);
    done
}
