//! A token of PKCS#11 (OASIS, 2.40 and newer): a device that keeps keys and signs with them. In: which token,
//! its PIN, what it shall do. Out: public keys and signatures; a private key never.
//!
//! What drives a token is foreign code that may take as long as it likes, so one thread talks to it, with one
//! session, and whoever asks waits for so long and no longer. After a failure the token rests; after a PIN
//! that it refused it is left alone until the process ends: tokens lock themselves.

#[cfg(feature = "pkcs11")]
mod module;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::offload;

/// How long whoever asks waits for the token.
#[cfg(feature = "pkcs11")]
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long the token is left alone after it failed.
const REST: Duration = Duration::from_secs(5);

/// Which token is meant: all that is given must be so. One token must be left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    /// Of the shared library, absolute.
    pub module: PathBuf,
    pub label: Option<String>,
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
}

impl fmt::Display for TokenPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label.as_ref().or(self.serial.as_ref()).map_or("", |name| name))
    }
}

/// A key pair in a token: P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// The public point, uncompressed: 65 octets.
    pub point: Vec<u8>,
}

/// Why a token does not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this dayfly was built without `pkcs11`: it cannot use a token")]
    NotBuilt,
    #[error("the PKCS#11 module `{path}` cannot be used: {why}")]
    Module { path: PathBuf, why: String },
    #[error("there is no token `{0}`")]
    Absent(String),
    #[error("there are several tokens `{0}`: name its `serial` too")]
    Ambiguous(String),
    #[error("the token `{token}` refused the PIN ({why}): it is not asked again before a restart")]
    Pin { token: String, why: String },
    #[error("one more wrong PIN locks the token `{0}`: log in to it by hand first")]
    LastTry(String),
    #[error("the token failed: {0}")]
    Failed(String),
    #[error("the token does not answer")]
    Silent,
    #[error("the key in the token cannot be used: {0}")]
    Key(String),
    #[error("the key in the token is not that of the certificate")]
    OtherKey,
}

impl TokenError {
    /// It is so until somebody does something, and asking again would do harm.
    fn is_final(&self) -> bool {
        matches!(self, Self::Pin { .. } | Self::NotBuilt)
    }

    /// Another session may do better.
    fn is_of_session(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Absent(_) | Self::Ambiguous(_) | Self::Module { .. } | Self::LastTry(_))
    }
}

/// A session that is open and logged in.
trait Session {
    /// `id` is used until the token lets the pair be named after its public key: `named`.
    fn make(&mut self, label: &str, id: &[u8], named: fn(&[u8]) -> Vec<u8>) -> Result<TokenKey, TokenError>;
    fn find(&mut self, id: &[u8]) -> Result<TokenKey, TokenError>;
    /// 64 octets: r and s.
    fn sign(&mut self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenError>;
}

/// Opens a session; `true`: one that may write.
type Open = Box<dyn FnMut(bool) -> Result<Box<dyn Session>, TokenError> + Send>;

enum Work {
    Make { label: String, id: Vec<u8>, named: fn(&[u8]) -> Vec<u8> },
    Find { id: Vec<u8> },
    Sign { id: Vec<u8>, digest: Vec<u8> },
}

enum Done {
    Key(TokenKey),
    Signature(Vec<u8>),
}

struct Ask {
    work: Work,
    answer: Sender<Result<Done, TokenError>>,
}

/// A token that is asked by many and talked to by one thread. Nothing is opened before the first question.
pub struct Token {
    name: String,
    /// There until the end.
    asks: Option<Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread is through.
    through: Mutex<Receiver<()>>,
    queue: Arc<Queue>,
    answer_within: Duration,
}

#[derive(Default)]
struct Queue {
    /// Questions that have no answer yet.
    pending: AtomicUsize,
    /// Somebody has waited in vain for one of them.
    late: AtomicBool,
}

impl Queue {
    fn is_stuck(&self) -> bool {
        self.late.load(Ordering::SeqCst) && self.pending.load(Ordering::SeqCst) > 0
    }

    fn answered(&self) {
        self.late.store(false, Ordering::SeqCst);
        self.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({})", self.name)
    }
}

impl Token {
    /// `pin`: of the token's user.
    #[cfg(feature = "pkcs11")]
    pub fn new(place: TokenPlace, pin: Zeroizing<String>) -> Result<Self, TokenError> {
        Self::over(place.to_string(), module::opener(place, &pin), ANSWER_WITHIN)
    }

    #[cfg(not(feature = "pkcs11"))]
    pub fn new(_place: TokenPlace, _pin: Zeroizing<String>) -> Result<Self, TokenError> {
        Err(TokenError::NotBuilt)
    }

    #[cfg_attr(not(any(feature = "pkcs11", test)), expect(dead_code, reason = "there is nothing to open"))]
    fn over(name: String, open: Open, answer_within: Duration) -> Result<Self, TokenError> {
        let ((asks, waiting), (end, through)) = (channel(), channel());
        let queue = Arc::<Queue>::default();
        let own = queue.clone();
        let begun = offload::apart("token", move || {
            Desk::new(open).serve(&waiting, &own);
            drop::<Sender<()>>(end);
        });
        let thread = Some(begun.map_err(|error| TokenError::Failed(error.to_string()))?);
        Ok(Self { name, asks: Some(asks), thread, through: Mutex::new(through), queue, answer_within })
    }

    /// What the token is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new pair that signs and does nothing else, and never leaves the token. It is called `label`; its id is
    /// what `named` makes of the public point, or `id` where the token does not let it be changed.
    pub fn make(&self, label: &str, id: Vec<u8>, named: fn(&[u8]) -> Vec<u8>) -> Result<TokenKey, TokenError> {
        self.key(Work::Make { label: label.to_owned(), id, named })
    }

    /// The pair with this id.
    pub fn find(&self, id: &[u8]) -> Result<TokenKey, TokenError> {
        self.key(Work::Find { id: id.to_vec() })
    }

    /// ECDSA over a digest: r and s, 32 octets each. Blocks for as long as the token takes, and no longer than
    /// ten seconds.
    pub fn sign(&self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        match self.ask(Work::Sign { id: id.to_vec(), digest: digest.to_vec() })? {
            Done::Signature(signature) if signature.len() == 64 => Ok(signature),
            _ => Err(TokenError::Failed("its signature is none of P-256".to_owned())),
        }
    }

    fn key(&self, work: Work) -> Result<TokenKey, TokenError> {
        match self.ask(work)? {
            Done::Key(key) => Ok(key),
            Done::Signature(_) => Err(TokenError::Silent),
        }
    }

    // SECURITY: `a_token_that_hangs_keeps_nobody_for_long`.
    fn ask(&self, work: Work) -> Result<Done, TokenError> {
        if self.queue.is_stuck() {
            return Err(TokenError::Silent);
        }
        let (answer, done) = channel();
        self.queue.pending.fetch_add(1, Ordering::SeqCst);
        let sent = self.asks.as_ref().map(|asks| asks.send(Ask { work, answer }));
        sent.ok_or(TokenError::Silent)?.map_err(|_| TokenError::Silent)?;
        done.recv_timeout(self.answer_within).map_err(|error| {
            if error == RecvTimeoutError::Timeout {
                self.queue.late.store(true, Ordering::SeqCst);
            }
            TokenError::Silent
        })?
    }
}

/// The module is left in order: in a process that ends while another thread is still in it, it crashes.
impl Drop for Token {
    fn drop(&mut self) {
        self.asks = None;
        let through = self.through.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Whatever hangs is left behind.
        let in_time = through.recv_timeout(self.answer_within) == Err(RecvTimeoutError::Disconnected);
        if let Some(thread) = self.thread.take().filter(|_| in_time) {
            // Its panic was told by itself.
            drop(thread.join());
        }
    }
}

/// The thread that talks to the token.
struct Desk {
    open: Open,
    session: Option<Box<dyn Session>>,
    refused: Option<TokenError>,
    failed: Option<(Instant, TokenError)>,
    rest: Duration,
}

impl Desk {
    fn new(open: Open) -> Self {
        Self { open, session: None, refused: None, failed: None, rest: REST }
    }

    fn serve(mut self, waiting: &Receiver<Ask>, queue: &Queue) {
        while let Ok(Ask { work, answer }) = waiting.recv() {
            let done = self.answer(&work);
            queue.answered();
            // Whoever does not wait any more was told that the token is silent.
            drop(answer.send(done));
        }
    }

    // SECURITY: `a_refused_pin_is_tried_once`.
    fn answer(&mut self, work: &Work) -> Result<Done, TokenError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if let Some((at, error)) = &self.failed
            && at.elapsed() < self.rest
        {
            return Err(error.clone());
        }
        let held = self.session.is_some();
        let mut done = self.attempt(work);
        // A session that was lost meanwhile says so at its next use.
        if held && done.as_ref().is_err_and(TokenError::is_of_session) {
            self.session = None;
            done = self.attempt(work);
        }
        self.note(done.as_ref().err());
        done
    }

    fn note(&mut self, error: Option<&TokenError>) {
        self.failed = None;
        match error {
            Some(error) if error.is_final() => self.refused = Some(error.clone()),
            Some(error) if error.is_of_session() => {
                self.session = None;
                self.failed = Some((Instant::now(), error.clone()));
            }
            _ => {}
        }
    }

    fn attempt(&mut self, work: &Work) -> Result<Done, TokenError> {
        // A session that may write is there for as long as it writes.
        if let Work::Make { label, id, named } = work {
            return (self.open)(true)?.make(label, id, *named).map(Done::Key);
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert((self.open)(false)?),
        };
        match work {
            Work::Sign { id, digest } => session.sign(id, digest).map(Done::Signature),
            Work::Find { id } | Work::Make { id, .. } => session.find(id).map(Done::Key),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
