//! Punycode (RFC 3492), as far as one question needs it: is an `xn--` label the one spelling of a name
//! that is not plain ASCII? Whoever decodes it must not see another host than we compare with.

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const BIAS: u32 = 72;
const FIRST: u32 = 0x80;
/// A label has at most 63 bytes.
const MAX_CHARS: usize = 63;

/// The label after its `xn--`.
pub(super) fn is_canonical(coded: &str) -> bool {
    let Some(decoded) = decode(coded) else { return false };
    let foreign = decoded.iter().any(|letter| !letter.is_ascii());
    foreign && decoded.iter().all(|letter| is_settled(*letter)) && encode(&decoded).as_deref() == Some(coded)
}

/// A letter that the mapping of names (UTS 46) leaves as it is, as far as blocks tell without its tables:
/// lower case, no raised, circled or wide form of a letter, nothing that is not seen, no dot of another
/// script. Compatibility forms elsewhere (ligatures of other scripts) pass: this is no complete answer.
fn is_settled(letter: char) -> bool {
    let lower = letter.to_lowercase().eq([letter]);
    let unseen = letter.is_control() || letter.is_whitespace() || letter == '\u{ad}';
    let raised = matches!(letter, '\u{aa}' | '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{ba}')
        || matches!(letter, '\u{17f}' | '\u{2b0}'..='\u{2ff}' | '\u{1d00}'..='\u{1dbf}');
    let other_form = raised
        || matches!(letter, '\u{2000}'..='\u{218f}' | '\u{2460}'..='\u{24ff}' | '\u{3002}' | '\u{fb00}'..='\u{ffff}')
        || matches!(letter, '\u{1d400}'..='\u{1d7ff}');
    lower && !unseen && !other_form
}

fn decode(coded: &str) -> Option<Vec<char>> {
    let (basic, extended) = coded.rsplit_once('-').unwrap_or(("", coded));
    let mut decoded: Vec<char> = basic.chars().collect();
    let (mut code, mut at, mut bias) = (FIRST, 0_u32, BIAS);
    let mut digits = extended.bytes();
    while digits.len() > 0 {
        let before = at;
        let (mut weight, mut k) = (1_u32, BASE);
        loop {
            let digit = value(digits.next()?)?;
            at = at.checked_add(digit.checked_mul(weight)?)?;
            let threshold = threshold(k, bias);
            if digit < threshold {
                break;
            }
            weight = weight.checked_mul(BASE - threshold)?;
            k += BASE;
        }
        let count = u32::try_from(decoded.len() + 1).ok()?;
        bias = adapt(at - before, count, before == 0);
        code = code.checked_add(at / count)?;
        at %= count;
        if decoded.len() >= MAX_CHARS {
            return None;
        }
        decoded.insert(at as usize, char::from_u32(code)?);
        at += 1;
    }
    Some(decoded)
}

fn encode(letters: &[char]) -> Option<String> {
    let mut coded: String = letters.iter().filter(|letter| letter.is_ascii()).collect();
    let basic = u32::try_from(coded.len()).ok()?;
    let (mut handled, mut code, mut delta, mut bias) = (basic, FIRST, 0_u32, BIAS);
    if basic > 0 {
        coded.push('-');
    }
    while (handled as usize) < letters.len() {
        let next = letters.iter().map(|letter| u32::from(*letter)).filter(|letter| *letter >= code).min()?;
        delta = delta.checked_add((next - code).checked_mul(handled + 1)?)?;
        code = next;
        for letter in letters.iter().map(|letter| u32::from(*letter)) {
            if letter < code {
                delta = delta.checked_add(1)?;
            }
            if letter == code {
                push_number(&mut coded, delta, bias);
                bias = adapt(delta, handled + 1, handled == basic);
                (delta, handled) = (0, handled + 1);
            }
        }
        (delta, code) = (delta.checked_add(1)?, code + 1);
    }
    Some(coded)
}

fn push_number(coded: &mut String, mut number: u32, bias: u32) {
    let mut k = BASE;
    loop {
        let threshold = threshold(k, bias);
        if number < threshold {
            return coded.push(digit(number));
        }
        coded.push(digit(threshold + (number - threshold) % (BASE - threshold)));
        number = (number - threshold) / (BASE - threshold);
        k += BASE;
    }
}

fn threshold(k: u32, bias: u32) -> u32 {
    k.saturating_sub(bias).clamp(T_MIN, T_MAX)
}

fn adapt(delta: u32, count: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / count;
    let mut k = 0;
    while delta > ((BASE - T_MIN) * T_MAX) / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

/// Lower case only: a label has one spelling.
fn value(digit: u8) -> Option<u32> {
    match digit {
        b'a'..=b'z' => Some(u32::from(digit - b'a')),
        b'0'..=b'9' => Some(u32::from(digit - b'0') + 26),
        _ => None,
    }
}

fn digit(value: u32) -> char {
    // INVARIANT: below BASE.
    let value = value as u8;
    char::from(if value < 26 { b'a' + value } else { b'0' + (value - 26) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of RFC 3492 section 7.1 and names that are in use.
    #[test]
    fn punycode_is_read_and_written() {
        for (coded, text) in [
            ("mller-kva", "müller"),
            ("bcher-kva", "bücher"),
            ("fiqs8s", "中国"),
            ("ihqwcrb4cv8a8dqg056pqjye", "他们为什么不说中文"),
            ("e1afmkfd", "пример"),
            ("egbpdaj6bu4bxfgehfvwxn", "ليهمابتكلموشعربي؟"),
            ("fiq228c5hs", "中文网"),
        ] {
            let letters: Vec<char> = text.chars().collect();
            assert_eq!(decode(coded).map(|letters| letters.iter().collect::<String>()).as_deref(), Some(text));
            assert_eq!(encode(&letters).as_deref(), Some(coded));
            assert!(is_canonical(coded), "{coded}");
        }
    }

    #[test]
    fn t_036_what_decodes_to_ascii_or_to_another_spelling() {
        for bad in
            ["example-", "", "-", "a", "99999999", "mller-kv", "mller-kv_", "mller-KVA", "MLLER-kva", "mnchen-3ya-"]
        {
            assert!(!is_canonical(bad), "{bad}: {:?}", decode(bad));
        }
        assert_eq!(decode("hop-f3a").map(String::from_iter).as_deref(), Some("\u{17f}hop"));
        for other in [
            "\u{17f}hop",
            "\u{24b8}loud",
            "\u{24d2}loud",
            "c\u{aa}sa",
            "n\u{ba}",
            "x\u{b2}",
            "x\u{b9}",
            "a\u{2b0}",
            "\u{1d43}b",
            "\u{2170}x",
            "a\u{200f}b",
        ] {
            let coded = encode(&other.chars().collect::<Vec<_>>()).unwrap();
            assert!(!is_canonical(&coded), "{other}");
        }
        for other in ["ｒｏｏｔ", "Müller", "gool\u{2024}e", "a\u{200b}b", "a\u{3002}b", "\u{1d41a}bc", "ﬁx"] {
            let coded = encode(&other.chars().collect::<Vec<_>>()).unwrap();
            assert!(!is_canonical(&coded), "{other}");
        }
    }
}
