//! A connection with a clock and strict framing: what stands between a stranger's bytes and the
//! HTTP library. It closes a connection whose head is slow, that is idle too long, or that takes
//! no answer, and it lets a refused client read its answer before the close. What the library
//! refuses by itself is told in the door's words.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use hyper::body::Buf;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    Door, Refuse, bare,
    framing::{Framing, Stage},
};
use crate::run::limits::Limits;

/// See the module.
pub(super) struct Gate<S> {
    inner: S,
    limits: Limits,
    framing: Framing,
    reading: Deadline<(Stage, u64)>,
    writing: Deadline<()>,
    lingering: Deadline<()>,
    linger_left: usize,
    eof: bool,
    refusal_sent: bool,
    refuse: Refuse,
    /// Whatever was answered is out: the next byte written begins an answer.
    flushed: bool,
    /// What is left of an answer that takes the place of the library's own.
    words: Option<Bytes>,
}

impl<S> Gate<S> {
    pub fn new(inner: S, door: &Door) -> Self {
        let limits = door.limits;
        Self {
            inner,
            limits,
            framing: Framing::new(limits.header_max_bytes),
            reading: Deadline::default(),
            writing: Deadline::default(),
            lingering: Deadline::default(),
            linger_left: LINGER_MAX_BYTES,
            eof: false,
            refusal_sent: false,
            refuse: door.refuse.clone(),
            flushed: true,
            words: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.framing.stage() == Stage::Refused && !self.refusal_sent && buf.remaining() >= HEAD_END.len() {
            // The library answers once it sees the end of a head.
            self.refusal_sent = true;
            buf.put_slice(HEAD_END);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if Pin::new(&mut self.inner).poll_read(cx, buf)?.is_pending() {
            return self.poll_slow(cx);
        }
        let read = &mut buf.filled_mut()[before..];
        self.eof |= read.is_empty();
        self.framing.pass(read);
        Poll::Ready(Ok(()))
    }
}

impl<S> Gate<S> {
    /// Nothing to read: has it been nothing for too long? SECURITY: `t_155_*`
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stage, heads) = (self.framing.stage(), self.framing.heads());
        let allowed = match stage {
            // The first head counts from the start of the connection: its two stages are one.
            Stage::Between | Stage::Head if heads == 0 => self.limits.header,
            Stage::Head => self.limits.header,
            Stage::Between => self.limits.idle,
            // The request's own deadline is at work (`Limits::body`).
            Stage::Body { .. } | Stage::Last | Stage::Refused => return Poll::Pending,
        };
        let key = if heads == 0 { (Stage::Head, 0) } else { (stage, heads) };
        self.reading.poll(cx, key, allowed).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes a write on, unless the client has taken nothing for too long.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing.clear();
            return written;
        }
        self.writing.poll(cx, (), self.limits.stall).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> Gate<S> {
    /// Writes the door's words instead of the library's own answer; `None` if it is no such
    /// answer. The library flushes before it reads on, and our bodies are whole: its own answer
    /// is what comes alone after a flush.
    fn poll_words(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Option<Poll<io::Result<usize>>> {
        let begins = std::mem::take(&mut self.flushed);
        let fresh = || if begins { bare::worded(answer, &self.refuse) } else { None };
        let mut words = self.words.take().or_else(fresh)?;
        while !words.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &words);
            match self.poll_stall(cx, written) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => words.advance(count),
                unwritten => {
                    self.words = Some(words);
                    return Some(unwritten);
                }
            }
        }
        Some(Poll::Ready(Ok(answer.len())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = self.poll_words(cx, buf) {
            return written;
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // More than one is a head with a body.
        let alone = if let [buf] = bufs { &**buf } else { &[] };
        if let Some(written) = self.poll_words(cx, alone) {
            return written;
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.flushed |= matches!(flushed, Poll::Ready(Ok(())));
        self.poll_stall(cx, flushed)
    }

    /// Says goodbye, then reads and drops what is still on its way: closing on unread bytes
    /// would take the answer away from the client.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        ready!(self.poll_stall(cx, shut))?;
        let mut waste = [0; 4096];
        while !self.eof && self.linger_left > 0 {
            let mut buf = ReadBuf::new(&mut waste);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.linger_left = self.linger_left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => self.eof = true,
                Poll::Pending => return self.lingering.poll(cx, (), LINGER).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX_BYTES: usize = 1 << 20;

/// A time by which something must have changed. A new key starts it anew.
struct Deadline<K> {
    key: Option<K>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<K> Default for Deadline<K> {
    fn default() -> Self {
        Self { key: None, sleep: None }
    }
}

impl<K: PartialEq> Deadline<K> {
    fn poll(&mut self, cx: &mut Context<'_>, key: K, allowed: Duration) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(allowed)));
        if self.key.as_ref() != Some(&key) {
            sleep.as_mut().reset(Instant::now() + allowed);
            self.key = Some(key);
        }
        sleep.as_mut().poll(cx)
    }

    fn clear(&mut self) {
        self.key = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Router, response::IntoResponse};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const BARE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    /// What a client gets, a few bytes at a time, of answers that are written in these pieces.
    async fn pass(answers: &[&[&str]], vectored: bool) -> String {
        let (near, mut far) = duplex(7);
        let refuse: Refuse = Arc::new(|status, _| (status, "words").into_response());
        let mut gate = Gate::new(near, &Door { refuse, ..Door::new(Router::new()) });
        let write = async move {
            for answer in answers {
                for piece in *answer {
                    write_all(&mut gate, piece.as_bytes(), vectored).await;
                }
                gate.flush().await.expect("flushed");
            }
        };
        let mut told = String::new();
        let ((), read) = tokio::join!(write, far.read_to_string(&mut told));
        read.expect("text");
        told
    }

    async fn write_all(gate: &mut Gate<DuplexStream>, mut bytes: &[u8], vectored: bool) {
        while !bytes.is_empty() {
            let slices = [io::IoSlice::new(bytes)];
            let written = if vectored { gate.write_vectored(&slices).await } else { gate.write(bytes).await };
            bytes = &bytes[written.expect("written")..];
        }
    }

    #[tokio::test]
    async fn the_own_answer_of_the_library_is_told_in_words_and_once() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for vectored in [false, true] {
            let told = pass(&[&[good], &[BARE]], vectored).await;
            let refused = told.strip_prefix(good).expect("the good answer first");
            assert!(refused.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: "), "{told}");
            assert!(refused.ends_with("\r\ncontent-length: 5\r\n\r\nwords"), "{told}");
            assert_eq!(told.matches("HTTP/1.1 ").count(), 2, "{told}");
        }
    }

    #[tokio::test]
    async fn a_body_that_looks_like_an_answer_of_the_library_stays_as_it_is() {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BARE.len());
        for vectored in [false, true] {
            assert_eq!(pass(&[&[&head, BARE]], vectored).await, format!("{head}{BARE}"));
        }
    }
}
