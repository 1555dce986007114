//! Regular expressions over strings.
//!
//! TensorFlow's are RE2's. The crate `regex` has nearly the same syntax; what differs is rewritten:
//! classes like `\s` are ASCII, and nothing nests inside brackets.

use regex::Regex;

use super::super::api::{Datum, EngineTensor, IntoTValue, OutletId, TypedFact, bail, tvec};
use super::super::graph::Node;
use super::computed::{Computed, room_for_text};
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};

/// The most bytes that a compiled expression may take.
const MAX_COMPILED: usize = 8 << 20;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "StaticRegexReplace" => |w, n, i| {
            let rewrite = n.attributes.text("rewrite").unwrap_or_default();
            replace(w, n, first(i)?, pattern_of(n)?, rewrite)
        },
        "RegexReplace" => |w, n, i| {
            let (pattern, rewrite) = (constant(w, input(i, 1)?)?, constant(w, input(i, 2)?)?);
            replace(w, n, first(i)?, &pattern, &rewrite)
        },
        "StaticRegexFullMatch" => |w, n, i| full_match(w, first(i)?, pattern_of(n)?),
        "RegexFullMatch" => |w, _, i| {
            let pattern = constant(w, input(i, 1)?)?;
            full_match(w, first(i)?, &pattern)
        },
        _ => return None,
    })
}

fn pattern_of(node: &Node) -> Result<&str, WiringError> {
    node.attributes.text("pattern").ok_or_else(|| invalid("has no pattern"))
}

/// A constant string.
pub(super) fn constant(w: &Wiring<'_>, outlet: OutletId) -> Result<String, WiringError> {
    let value = w.konst(outlet)?;
    let plain = value.try_as_plain_ram()?;
    plain.as_slice::<String>()?.first().cloned().ok_or_else(|| invalid("an empty constant"))
}

fn compiled(pattern: &str) -> Result<Regex, WiringError> {
    let compiled = regex::RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
    compiled.map_err(|error| invalid(format!("the pattern `{pattern}`: {error}")))
}

fn replace(w: &mut Wiring<'_>, node: &Node, x: OutletId, pattern: &str, rewrite: &str) -> Wired {
    let (pattern, rewrite) = (compiled(&translated(pattern))?, rewriting(rewrite));
    let global = node.attributes.bool("replace_global").unwrap_or(true);
    let budget = w.budget();
    let fact = TypedFact::dt_shape(String::datum_type(), &*w.dims(x)?);
    let op = Computed::giving("RegexReplace", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let words = x.to_plain_array_view::<String>()?;
        let limit = usize::from(!global);
        // A match before each character, and each mention of a group in place of one is no longer than all.
        let most = |s: &String| {
            (s.len() as u64).saturating_add((2 * s.len() as u64 + 1).saturating_mul(rewrite.len() as u64))
        };
        room_for_text(words.iter().map(most).fold(0, u64::saturating_add), budget)?;
        let replaced = words.map(|s| pattern.replacen(s, limit, rewrite.as_str()).into_owned());
        Ok(tvec!(EngineTensor::from(replaced).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

fn full_match(w: &mut Wiring<'_>, x: OutletId, pattern: &str) -> Wired {
    let pattern = compiled(&format!(r"\A(?:{})\z", translated(pattern)))?;
    let fact = TypedFact::dt_shape(bool::datum_type(), &*w.dims(x)?);
    let op = Computed::giving("RegexFullMatch", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let words = x.to_plain_array_view::<String>()?;
        Ok(tvec!(EngineTensor::from(words.map(|s| pattern.is_match(s))).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// An expression of RE2 in the syntax of the crate.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut characters = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match (characters.next(), in_class) {
                (Some('s'), false) => out.push_str(r"[\t\n\f\r ]"),
                (Some('S'), false) => out.push_str(r"[^\t\n\f\r ]"),
                (Some('w'), false) => out.push_str("[0-9A-Za-z_]"),
                (Some('W'), false) => out.push_str("[^0-9A-Za-z_]"),
                (Some('d'), false) => out.push_str("[0-9]"),
                (Some('D'), false) => out.push_str("[^0-9]"),
                (Some('b'), false) => out.push_str(r"(?-u:\b)"),
                (Some('s'), true) => out.push_str(r"\t\n\f\r "),
                (Some('w'), true) => out.push_str("0-9A-Za-z_"),
                (Some('d'), true) => out.push_str("0-9"),
                // Here the crate has word boundaries, RE2 the characters themselves.
                (Some(angle @ ('<' | '>')), _) => out.push(angle),
                (Some(other), _) => out.extend(['\\', other]),
                (None, _) => out.push('\\'),
            },
            '[' if in_class && characters.peek() == Some(&':') => out.push('['),
            '[' if in_class => out.push_str(r"\["),
            '&' | '~' if in_class => out.extend(['\\', character]),
            '[' => {
                in_class = true;
                out.push('[');
                if let Some(negation) = characters.next_if_eq(&'^') {
                    out.push(negation);
                }
                // A bracket that comes first is a character of the class.
                if characters.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
            }
            ']' => {
                // The end of a named class inside brackets is not that of the brackets.
                in_class = in_class && out.ends_with(':');
                out.push(']');
            }
            other => out.push(other),
        }
    }
    out
}

/// What a match is replaced with: `\1` for a group, `\0` for all of it.
fn rewriting(rewrite: &str) -> String {
    let mut out = String::with_capacity(rewrite.len());
    let mut characters = rewrite.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(group) if group.is_ascii_digit() => out.extend(['$', '{', group, '}']),
                Some(other) => out.push(other),
                None => {}
            },
            '$' => out.push_str("$$"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, rewrite: &str, text: &str) -> String {
        let pattern = compiled(&translated(pattern)).unwrap();
        pattern.replace_all(text, rewriting(rewrite).as_str()).into_owned()
    }

    #[test]
    fn the_punctuation_that_keras_strips_is_stripped() {
        let keras = r##"[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']"##;
        assert_eq!(
            replaced(keras, "", "it's [a] ~test~ & more: \\x/ <b>, no-op_"),
            "its a test  more x b noop"
        );
    }

    #[test]
    fn classes_are_those_of_ascii_and_do_not_nest() {
        // From tf.strings.regex_replace of TensorFlow 2.21.
        assert_eq!(replaced(r"\s+", "_", "a\u{a0}b \t c"), "a\u{a0}b_c");
        assert_eq!(replaced(r"[^\w]", ".", "é-a"), "..a");
        assert_eq!(replaced(r"[[&&]", "x", "a[b&c"), "axbxc");
        assert_eq!(replaced(r"[[:alpha:]]+", "x", "ab1"), "x1");
        assert_eq!(replaced(r"(a)(b)", r"\2\1$\\", "ab"), r"ba$\");
        assert_eq!(replaced(r"\<b\>", "x", "<b>b"), "xb");
    }
}
