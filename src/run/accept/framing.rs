//! Where one request ends and the next begins, decided more strictly than the HTTP library
//! does: a line ends with CR LF and nothing else, and a length is said once and in one way. A
//! proxy in front of the broker can then not see other requests in a stream than the broker.
//!
//! In: the bytes of a connection, as they come. Out: the same bytes; the first one that breaks
//! the rules becomes NUL, which the library answers with 400 and a close.

/// Reads along with a connection. After a chunked request it stops looking: such a request must
/// be the connection's last.
#[derive(Debug)]
pub(super) struct Framing {
    stage: Stage,
    head: Head,
    /// Heads that ended; tells two idle times apart.
    heads: u64,
    line_max_bytes: usize,
}

/// What the connection is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Between requests: nothing of a head was seen.
    Between,
    Head,
    Body {
        left: u64,
    },
    /// The last request's body, of unknown length.
    Last,
    Refused,
}

#[derive(Debug, Default)]
struct Head {
    line: Vec<u8>,
    after_cr: bool,
    request_line: bool,
    length: Option<u64>,
    chunked: bool,
}

/// A byte that breaks the rules.
struct Broken;

impl Framing {
    pub fn new(line_max_bytes: usize) -> Self {
        Self { stage: Stage::Between, head: Head::default(), heads: 0, line_max_bytes }
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How many heads ended so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes note of bytes that were read. SECURITY: `t_157_*`
    pub fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.stage {
                Stage::Last | Stage::Refused => return,
                Stage::Body { left } => at += self.pass_body(left, bytes.len() - at),
                Stage::Between | Stage::Head => {
                    if self.pass_head(bytes[at]).is_err() {
                        bytes[at] = 0;
                        self.stage = Stage::Refused;
                    }
                    at += 1;
                }
            }
        }
    }

    fn pass_body(&mut self, left: u64, here: usize) -> usize {
        let taken = usize::try_from(left).map_or(here, |left| left.min(here));
        let left = left - taken as u64;
        self.stage = if left == 0 { Stage::Between } else { Stage::Body { left } };
        taken
    }

    fn pass_head(&mut self, byte: u8) -> Result<(), Broken> {
        self.stage = Stage::Head;
        let after_cr = std::mem::replace(&mut self.head.after_cr, byte == b'\r');
        match (after_cr, byte) {
            (true, b'\n') => self.pass_line(),
            (true, _) | (false, b'\n') => Err(Broken),
            (false, b'\r') => Ok(()),
            (false, _) => {
                // A longer line is over the library's limit for the whole head.
                if self.head.line.len() < self.line_max_bytes {
                    self.head.line.push(byte);
                }
                Ok(())
            }
        }
    }

    fn pass_line(&mut self) -> Result<(), Broken> {
        let line = std::mem::take(&mut self.head.line);
        match (self.head.request_line, line.is_empty()) {
            // RFC 9112 section 2.2: an empty line before a request is passed over.
            (false, true) => {}
            (false, false) => self.head.request_line = true,
            (true, false) => self.head.pass_field(&line)?,
            (true, true) => self.end_head(),
        }
        Ok(())
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.heads += 1;
        self.stage = match (head.chunked, head.length) {
            (true, _) => Stage::Last,
            (false, None | Some(0)) => Stage::Between,
            (false, Some(left)) => Stage::Body { left },
        };
    }
}

impl Head {
    /// One of `Content-Length` and `Transfer-Encoding`, once, with the one value it may have.
    fn pass_field(&mut self, line: &[u8]) -> Result<(), Broken> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Broken)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let length = name.eq_ignore_ascii_case(b"content-length");
        let coding = name.eq_ignore_ascii_case(b"transfer-encoding");
        if (length || coding) && (self.chunked || self.length.is_some()) {
            return Err(Broken);
        }
        if length {
            self.length = Some(digits(value).ok_or(Broken)?);
        }
        if coding {
            self.chunked = value.eq_ignore_ascii_case(b"chunked");
        }
        if coding && !self.chunked { Err(Broken) } else { Ok(()) }
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the bytes in pieces of every size; all must agree.
    fn pass(text: &str) -> (Stage, u64) {
        let runs: Vec<_> = (1..=text.len()).map(|size| pass_in_pieces(text, size)).collect();
        assert!(runs.windows(2).all(|pair| pair[0] == pair[1]), "{text:?}: {runs:?}");
        runs[0]
    }

    fn pass_in_pieces(text: &str, size: usize) -> (Stage, u64) {
        let mut framing = Framing::new(1000);
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(size).for_each(|piece| framing.pass(piece));
        let changed = bytes != text.as_bytes();
        assert_eq!(changed, framing.stage() == Stage::Refused, "{text:?}");
        (framing.stage(), framing.heads())
    }

    #[test]
    fn requests_follow_each_other() {
        assert_eq!(pass("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (Stage::Between, 1));
        assert_eq!(pass("GET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"), (Stage::Between, 2));
        assert_eq!(pass("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET /"), (Stage::Head, 1));
        assert_eq!(pass("POST / HTTP/1.1\r\ncontent-length:9\r\n\r\nabc"), (Stage::Body { left: 6 }, 1));
        assert_eq!(pass("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\n\n"), (Stage::Last, 1));
    }

    #[test]
    fn t_157_ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
        ] {
            assert_eq!(pass(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).0, Stage::Refused, "{fields:?}");
        }
    }

    #[test]
    fn t_157_a_bare_lf_or_cr_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(pass(text).0, Stage::Refused, "{text:?}");
        }
    }
}
