//! A platform as an issuer may be: a real listener with a real certificate, which answers what it is
//! told and counts who came. Without an answer it is a canary.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dayfly::sys::net::server_config;
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::served::Authority;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub head: String,
    pub body: String,
}

impl Asked {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// Bytes, and what comes after them.
#[derive(Debug, Clone)]
pub enum Reply {
    Close(Vec<u8>),
    Silence(Vec<u8>),
    /// The second part again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// A byte at a time, slowly.
    Drip(Vec<u8>),
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self::with("", value)
    }

    /// 200, with further header lines.
    pub fn with(headers: &str, value: &Value) -> Self {
        Self::status("200 OK", headers, &value.to_string())
    }

    pub fn status(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Close(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes())
    }
}

type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub struct Platform {
    pub address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    stopped: Option<std::thread::JoinHandle<()>>,
}

impl Platform {
    /// With a certificate for loopback.
    pub fn start(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = authority.write_leaf(dir.path(), "platform");
        Self::with_certificate(&cert, &key)
    }

    pub fn with_certificate(cert: &Path, key: &Path) -> Self {
        let read = |path| std::fs::read(path).unwrap();
        Self::serve("127.0.0.1:0", Some(server_config(&read(cert), &read(key)).unwrap()))
    }

    /// Nobody has any business here.
    pub fn canary() -> Self {
        Self::serve("127.0.0.1:0", None)
    }

    fn serve(at: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Arc::new(|_| Reply::status("404 Not Found", "", ""))));
        let (asked, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (stop, stopped) = oneshot::channel();
        let state = (answers.clone(), asked.clone(), connections.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), tls, state) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, answers, asked, connections, stop: Some(stop), stopped: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn answers(&self, answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }

    /// What an issuer answers that has these keys.
    pub fn publishes(&self, keys: &[&SigningKey]) {
        self.publishes_with("", keys);
    }

    /// The same, with further header lines of the key set.
    pub fn publishes_with(&self, headers: &str, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        let (url, headers, jwks) = (self.url(), headers.to_owned(), json!({ "keys": keys }));
        self.answers(move |asked| match asked.path() {
            DISCOVERY => Reply::json(&discovery(&url)),
            "/jwks" => Reply::with(&headers, &jwks),
            _ => Reply::status("404 Not Found", "", ""),
        });
    }

    /// Connections that came, with or without a request.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often the key set was asked for.
    pub fn fetches(&self) -> usize {
        self.asked().iter().filter(|asked| asked.path() == "/jwks").count()
    }

    /// Gone: its address refuses connections.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.stopped.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.end();
    }
}

pub const DISCOVERY: &str = "/.well-known/openid-configuration";

pub fn discovery(url: &str) -> Value {
    json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") })
}

type State = (Arc<Mutex<Answers>>, Arc<Mutex<Vec<Asked>>>, Arc<AtomicUsize>);

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, state: State) {
    while let Ok((stream, _)) = listener.accept().await {
        state.2.fetch_add(1, Ordering::SeqCst);
        let (tls, state) = (tls.clone(), state.clone());
        tokio::spawn(async move {
            match tls {
                Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                    Ok(stream) => answer(stream, state).await,
                    Err(_) => None,
                },
                None => answer(stream, state).await,
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, (answers, asked, _): State) -> Option<()> {
    let request = read(&mut stream).await?;
    asked.lock().unwrap().push(request.clone());
    let answers = answers.lock().unwrap().clone();
    match answers(&request) {
        Reply::Close(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()
        }
        Reply::Silence(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.flush().await.ok()?;
            std::future::pending().await
        }
        Reply::Endless(bytes, again) => {
            stream.write_all(&bytes).await.ok()?;
            loop {
                stream.write_all(&again).await.ok()?;
            }
        }
        Reply::Drip(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Some(())
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { head, body: String::from_utf8(body).ok()? })
}
