//! What becomes of questions to a token that fails, hangs, or refuses its PIN.

use std::sync::mpsc::{SyncSender, sync_channel};

use super::*;

/// What the device does next: at an opening, at a signature.
#[derive(Default)]
struct Script {
    opened: AtomicUsize,
    signed: AtomicUsize,
    absent: AtomicBool,
    wrong_pin: AtomicBool,
    lost: AtomicBool,
}

struct Played(Arc<Script>);

impl Session for Played {
    fn make(&mut self, _: &str, _: &[u8], named: fn(&[u8]) -> Vec<u8>) -> Result<TokenKey, TokenError> {
        Ok(TokenKey { id: named(&[4; 65]), point: vec![4; 65] })
    }

    fn find(&mut self, id: &[u8]) -> Result<TokenKey, TokenError> {
        Err(TokenError::Key(format!("none with {} octets", id.len())))
    }

    fn sign(&mut self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.0.signed.fetch_add(1, Ordering::SeqCst);
        match self.0.lost.swap(false, Ordering::SeqCst) {
            true => Err(TokenError::Failed("C_SignInit: CKR_SESSION_HANDLE_INVALID".to_owned())),
            false => Ok(vec![7; 64]),
        }
    }
}

fn desk(rest: Duration) -> (Arc<Script>, Desk) {
    let script = Arc::<Script>::default();
    let own = script.clone();
    let open = move |_| {
        own.opened.fetch_add(1, Ordering::SeqCst);
        if own.wrong_pin.load(Ordering::SeqCst) {
            return Err(TokenError::Pin { token: "t".to_owned(), why: "CKR_PIN_INCORRECT".to_owned() });
        }
        if own.absent.load(Ordering::SeqCst) {
            return Err(TokenError::Absent("t".to_owned()));
        }
        Ok(Box::new(Played(own.clone())) as Box<dyn Session>)
    };
    (script, Desk { rest, ..Desk::new(Box::new(open)) })
}

fn sign(desk: &mut Desk) -> Result<(), TokenError> {
    desk.answer(&Work::Sign { id: vec![1], digest: vec![0; 32] }).map(drop)
}

#[test]
fn a_refused_pin_is_tried_once() {
    let (script, mut desk) = desk(Duration::ZERO);
    script.wrong_pin.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        assert!(matches!(sign(&mut desk), Err(TokenError::Pin { .. })));
    }
    // Also when it would be right by now.
    script.wrong_pin.store(false, Ordering::SeqCst);
    assert!(matches!(sign(&mut desk), Err(TokenError::Pin { .. })));
    assert_eq!(script.opened.load(Ordering::SeqCst), 1);
}

#[test]
fn a_pin_that_is_refused_when_a_session_was_lost_is_not_tried_again() {
    let (script, mut desk) = desk(Duration::ZERO);
    sign(&mut desk).unwrap();
    script.lost.store(true, Ordering::SeqCst);
    script.wrong_pin.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        assert!(matches!(sign(&mut desk), Err(TokenError::Pin { .. })));
    }
    assert_eq!(script.opened.load(Ordering::SeqCst), 2);
}

#[test]
fn a_lost_session_is_opened_again_and_nobody_notices() {
    let (script, mut desk) = desk(Duration::ZERO);
    sign(&mut desk).unwrap();
    script.lost.store(true, Ordering::SeqCst);
    sign(&mut desk).unwrap();
    sign(&mut desk).unwrap();
    assert_eq!((script.opened.load(Ordering::SeqCst), script.signed.load(Ordering::SeqCst)), (2, 4));
}

#[test]
fn a_token_that_is_gone_rests_and_is_found_again() {
    let (script, mut long) = desk(Duration::from_secs(3_600));
    script.absent.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(sign(&mut long), Err(TokenError::Absent("t".to_owned())));
    }
    assert_eq!(script.opened.load(Ordering::SeqCst), 1, "it is left alone");
    let (script, mut short) = desk(Duration::ZERO);
    script.absent.store(true, Ordering::SeqCst);
    assert!(sign(&mut short).is_err());
    script.absent.store(false, Ordering::SeqCst);
    sign(&mut short).unwrap();
    // What is wrong with one key keeps nobody from another.
    assert!(matches!(short.answer(&Work::Find { id: vec![1] }), Err(TokenError::Key(_))));
    sign(&mut short).unwrap();
    assert_eq!(script.opened.load(Ordering::SeqCst), 2);
}

struct Stuck(Arc<Mutex<Receiver<()>>>);

impl Session for Stuck {
    fn make(&mut self, _: &str, _: &[u8], _: fn(&[u8]) -> Vec<u8>) -> Result<TokenKey, TokenError> {
        Err(TokenError::Silent)
    }

    fn find(&mut self, _: &[u8]) -> Result<TokenKey, TokenError> {
        Err(TokenError::Silent)
    }

    fn sign(&mut self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.0.lock().unwrap().recv().map_err(|_| TokenError::Silent)?;
        Ok(vec![7; 64])
    }
}

fn stuck() -> (SyncSender<()>, Token) {
    let (go, held) = sync_channel(0);
    let held = Arc::new(Mutex::new(held));
    let open = move |_| Ok(Box::new(Stuck(held.clone())) as Box<dyn Session>);
    (go, Token::over("t".to_owned(), Box::new(open), Duration::from_millis(50)).unwrap())
}

#[test]
fn a_token_that_hangs_keeps_nobody_for_long() {
    let (go, mut token) = stuck();
    assert_eq!(token.sign(&[1], &[0; 32]), Err(TokenError::Silent));
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(token.sign(&[1], &[0; 32]), Err(TokenError::Silent));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "nobody else waits");
    // It comes back.
    go.send(()).unwrap();
    while token.queue.is_stuck() {
        std::thread::yield_now();
    }
    token.answer_within = Duration::from_secs(600);
    std::thread::scope(|scope| {
        let signed = scope.spawn(|| token.sign(&[1], &[0; 32]));
        go.send(()).unwrap();
        assert_eq!(signed.join().unwrap(), Ok(vec![7; 64]));
    });
}
