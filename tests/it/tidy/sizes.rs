//! Files of at most 600 lines, functions of at most 70.

use super::source::{Source, body_or_end, closing, ident_at, line, words};

const FILE_MAX_LINES: usize = 600;
const FUNCTION_MAX_LINES: usize = 70;

pub fn files(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, at most {FILE_MAX_LINES}: split it");
    (lines > FILE_MAX_LINES).then(|| source.offence(0, &what)).into_iter().collect()
}

pub fn functions(source: &Source) -> Vec<String> {
    let code = &source.code;
    let long = |at: usize| {
        let name = ident_at(code, at + 3);
        let open = body_or_end(code, at).filter(|open| code.as_bytes()[*open] == b'{')?;
        let lines = line(code, closing(code, open)) - line(code, at) + 1;
        let what = format!("`{name}` has {lines} lines, at most {FUNCTION_MAX_LINES}");
        (lines > FUNCTION_MAX_LINES && !name.is_empty()).then(|| source.offence(at, &what))
    };
    words(code, "fn").filter(|at| code.len() > at + 3).filter_map(long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_noticed() {
        assert_eq!(files(&Source::new("src/a.rs", &"//! a\n".repeat(601))).len(), 1);
        assert!(files(&Source::new("src/a.rs", &"//! a\n".repeat(600))).is_empty());
    }

    #[test]
    fn a_long_function_is_noticed() {
        let of = |lines: usize| {
            let body = "    call(\"}\"); // }\n".repeat(lines - 2);
            Source::new(
                "src/a.rs",
                &format!("trait T {{\n    fn short(x: [u8; 3]);\n}}\nfn long(x: [u8; 3]) -> u8 {{\n{body}}}\n"),
            )
        };
        assert!(functions(&of(70)).is_empty());
        assert_eq!(functions(&of(71)), ["src/a.rs:4: `long` has 71 lines, at most 70"]);
    }
}
