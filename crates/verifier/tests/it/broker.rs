//! A broker in a test's hand: metadata, keys and introspection over TLS on a port of its own.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dayfly_verifier::{Clock, Credential, Online, OnlineSettings, Secret, SetupError, TaskClaims, UnixMs};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, header::AUTHORIZATION, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::{support::*, task::task_claims};

/// A clock that only a test moves.
#[derive(Default)]
pub struct Stepped(AtomicI64);

impl Stepped {
    pub fn advance_s(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for Stepped {
    fn now(&self) -> UnixMs {
        UnixMs::from_s(NOW_S).plus_ms(self.0.load(Ordering::SeqCst))
    }
}

/// How a path answers.
#[derive(Clone)]
pub enum Answer {
    Json(Value),
    Raw(u16, String),
    Redirect(String),
    Never,
}

pub struct Broker {
    pub issuer: String,
    pub key: Es256,
    pub ca_pem: Vec<u8>,
    pub clock: Arc<Stepped>,
    pub metadata: Mutex<Answer>,
    pub jwks: Mutex<Answer>,
    pub introspect: Mutex<Answer>,
    /// Fetches of the JWK Set.
    pub fetched: AtomicUsize,
    pub asked: AtomicUsize,
    /// Status lists, by path.
    pub lists: Mutex<HashMap<String, Answer>>,
    /// Fetches of status lists.
    pub listed: AtomicUsize,
    /// Seconds that pass while the broker answers a question.
    pub slow_s: AtomicI64,
    pub last_bearer: Mutex<String>,
    pub last_form: Mutex<String>,
}

impl Broker {
    pub async fn start() -> Arc<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://{}", listener.local_addr().unwrap());
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/oauth2/jwks")});
        let key = Es256::new();
        let broker = Arc::new(Self {
            metadata: Mutex::new(Answer::Json(metadata)),
            jwks: Mutex::new(Answer::Json(json!({"keys": [key.signing.jwk()]}))),
            introspect: Mutex::new(Answer::Json(json!({"active": false}))),
            issuer,
            key,
            ca_pem: made.cert.pem().into_bytes(),
            clock: Arc::default(),
            fetched: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            lists: Mutex::default(),
            listed: AtomicUsize::new(0),
            slow_s: AtomicI64::new(0),
            last_bearer: Mutex::default(),
            last_form: Mutex::default(),
        });
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tokio::spawn(broker.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));
        broker
    }

    async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener, tls: TlsAcceptor) {
        while let Ok((tcp, _)) = listener.accept().await {
            let (broker, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let service = service_fn(|request| broker.answer(request));
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let answer = match path.as_str() {
            "/.well-known/oauth-authorization-server" => self.metadata.lock().unwrap().clone(),
            "/oauth2/jwks" => {
                self.fetched.fetch_add(1, Ordering::SeqCst);
                self.jwks.lock().unwrap().clone()
            }
            "/oauth2/introspect" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.clock.advance_s(self.slow_s.load(Ordering::SeqCst));
                let bearer = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
                *self.last_bearer.lock().unwrap() = bearer.unwrap_or_default();
                let form = request.into_body().collect().await.unwrap().to_bytes();
                *self.last_form.lock().unwrap() = String::from_utf8(form.to_vec()).unwrap();
                self.introspect.lock().unwrap().clone()
            }
            path => {
                self.listed.fetch_add(usize::from(path.starts_with("/status/")), Ordering::SeqCst);
                self.clock.advance_s(self.slow_s.load(Ordering::SeqCst));
                self.lists.lock().unwrap().get(path).cloned().unwrap_or(Answer::Raw(404, String::new()))
            }
        };
        let (status, body, location) = match answer {
            Answer::Json(value) => (200, value.to_string(), None),
            Answer::Raw(status, body) => (status, body, None),
            Answer::Redirect(to) => (302, String::new(), Some(to)),
            Answer::Never => std::future::pending().await,
        };
        let mut response = Response::builder().status(status);
        if let Some(to) = location {
            response = response.header("location", to);
        }
        Ok(response.body(Full::new(body.into())).unwrap())
    }

    pub fn set(&self, place: &Mutex<Answer>, answer: Answer) {
        *place.lock().unwrap() = answer;
    }

    pub fn fetches(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    pub fn questions(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn claims(&self) -> TaskClaims {
        TaskClaims { iss: self.issuer.clone(), ..task_claims() }
    }

    pub fn token(&self) -> String {
        self.key.signing.sign("at+jwt", &self.claims()).unwrap()
    }

    /// What a broker says of that token while it lives.
    pub fn active(&self) -> Answer {
        let claims = self.claims();
        Answer::Json(json!({"active": true, "jti": claims.jti, "aud": claims.aud, "exp": claims.exp}))
    }

    pub fn settings(&self, max_stale_s: u64) -> OnlineSettings {
        OnlineSettings {
            issuer: self.issuer.clone(),
            audience: self.claims().aud,
            ca_pem: Some(self.ca_pem.clone()),
            credential: Credential::Bearer(Secret::new("introspector".to_owned())),
            max_stale: Duration::from_secs(max_stale_s),
        }
    }

    pub async fn online(&self, max_stale_s: u64) -> Result<Online, SetupError> {
        Online::with_clock(self.settings(max_stale_s), self.clock.clone()).await
    }
}
