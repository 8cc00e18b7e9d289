//! One Rust file as the checks see it: comments and the insides of strings blanked, and once more
//! with the tests blanked too. Blanking keeps every offset and every line.

/// One Rust file.
pub struct Source {
    pub path: String,
    pub text: String,
    /// Comments and the insides of strings are blank.
    pub code: String,
    /// `code` without what only tests compile.
    pub live: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_words(text);
        let live = blank_tests(&code);
        let mut source = Self { path: path.to_owned(), text: text.to_owned(), code, live };
        if path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") {
            source.only_tests();
        }
        source
    }

    /// Nothing in this file is part of the product.
    pub fn only_tests(&mut self) {
        self.live = self.code.chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
    }

    /// `path:line: what`, for an offset into the text.
    pub fn offence(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line(&self.text, at))
    }
}

/// The line number of an offset, from 1.
pub fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

pub fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Offsets of `needle` in `code` where no identifier runs into its front.
pub fn occurrences<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let starts_ident = needle.bytes().next().is_some_and(is_ident);
    let whole = move |at: &usize| !starts_ident || *at == 0 || !is_ident(code.as_bytes()[at - 1]);
    code.match_indices(needle).map(|(at, _)| at).filter(whole)
}

/// Offsets of `word` in `code` where it stands alone.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let alone = move |at: &usize| !code.as_bytes().get(at + word.len()).copied().is_some_and(is_ident);
    occurrences(code, word).filter(alone)
}

/// The identifier at an offset; empty when there is none.
pub fn ident_at(code: &str, at: usize) -> &str {
    let len = code.as_bytes()[at..].iter().take_while(|byte| is_ident(**byte)).count();
    &code[at..at + len]
}

pub fn skip_space(code: &str, at: usize) -> usize {
    at + code.as_bytes()[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The offset of the bracket that closes the one at `open`; the end when none does.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// The first `{` or `;` after `from` that is in no round or square bracket.
pub fn body_or_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' | b';' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn blank_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (blank_from, next) = word_at(bytes, at);
        let blank_to = if bytes[at] == b'/' { next } else { next.saturating_sub(1) };
        for byte in out.iter_mut().take(blank_to).skip(blank_from) {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = next;
    }
    String::from_utf8(out).expect("comments and strings are blanked whole")
}

/// What begins at `at`: where its blank part starts, and where the next thing begins.
fn word_at(bytes: &[u8], at: usize) -> (usize, usize) {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => (at, at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => (at, at + block_comment(rest)),
        [b'"', ..] => (at + 1, at + string(rest)),
        [b'r', ..] if raw_may_start(bytes, at) => {
            raw_string(rest).map_or((at, at + 1), |(from, to)| (at + from, at + to))
        }
        [b'\'', b'\\', _, more @ ..] => {
            (at + 1, at + 3 + more.iter().position(|byte| *byte == b'\'').map_or(more.len(), |end| end + 1))
        }
        [b'\'', ..] => character(rest).map_or((at + 1, at + 1), |len| (at + 1, at + len)),
        _ => (at + 1, at + 1),
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// An `r` that no identifier runs into, but for the prefixes of `br` and `cr`.
fn raw_may_start(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map_or(b' ', |at| bytes[at]);
    !is_ident(before(1)) || (matches!(before(1), b'b' | b'c') && !is_ident(before(2)))
}

/// Where the inside of a raw string starts and where the string ends.
fn raw_string(rest: &[u8]) -> Option<(usize, usize)> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = hashes + 2;
    let len = rest[inside..].windows(close.len()).position(|window| window == close)?;
    Some((inside, inside + len + close.len()))
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    let len = match rest.get(1)? {
        ..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    };
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

fn blank_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for attribute in ["#[cfg(test)]", "#[test]", "#[tokio::test"] {
        for (at, _) in code.match_indices(attribute) {
            let end = item_end(code, at);
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8(out).expect("code outside strings and comments is blanked by the item")
}

/// Past the end of the item whose first attribute is at `at`.
fn item_end(code: &str, mut at: usize) -> usize {
    while code[at..].starts_with("#[") {
        at = skip_space(code, (closing(code, at + 1) + 1).min(code.len()));
    }
    match body_or_end(code, at) {
        Some(open) if code.as_bytes()[open] == b'{' => (closing(code, open) + 1).min(code.len()),
        Some(end) => end + 1,
        None => code.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blank() {
        let text = "let a = \"x.unwrap()\"; // y.unwrap()\n/* z /* .unwrap() */ */ let b = r#\"q\".unwrap()\"#;";
        let source = Source::new("src/a.rs", text);
        assert!(!source.code.contains("unwrap"), "{}", source.code);
        assert_eq!((source.code.len(), source.code.lines().count()), (text.len(), 2));
        assert!(source.code.contains("let b = r#\""));
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        let source = Source::new("src/a.rs", "fn f<'a>(x: &'a str) { m('\"', '\\'', 'µ', b'{'); } // end");
        assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
        assert!(source.code.contains("fn f<'a>(x: &'a str)") && !source.code.contains("end"));
    }

    #[test]
    fn tests_are_not_live() {
        let text =
            "fn a() {}\n#[cfg(test)]\nuse x::{y, z};\nfn b() {}\n#[cfg(test)]\nmod tests {\n fn c() {}\n}\nfn d() {}";
        let live = Source::new("src/a.rs", text).live;
        assert!(live.contains("fn a") && live.contains("fn b") && live.contains("fn d"), "{live}");
        assert!(!live.contains("fn c") && !live.contains("use x"), "{live}");
        assert!(Source::new("tests/it/a.rs", text).live.trim().is_empty());
    }
}
