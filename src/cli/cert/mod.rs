//! `dayfly cert`: a certificate for one task, in files that a server reads. In: what to ask for and where it
//! goes. Out: files that are always whole, and a hook that is told of each change.
//!
//! The key is made here and never sent (law: `keys`). A kept handle is used first; otherwise evidence opens a
//! task under a new handle, as with `dayfly token`. With `--watch` this process stays with it (`watch`).

mod files;
mod keys;
mod roots;
mod watch;

use std::{path::PathBuf, sync::Arc};

use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use self::files::Files;
pub use self::{files::spiffe_id, keys::Keys, roots::fetched as fetched_roots};
use super::{
    api::Api,
    args::{CertArgs, Output},
    door::Door,
    exec::{HOOK, Heard, Hook, Signals, Told},
    failure::Failure,
    identity, print,
    progress::Progress,
    proof,
    session::Session,
    token::{
        self, Granted, Kept, deliver,
        exchange::{Ask, Form},
        handle,
    },
};
use crate::http::shapes::TokenAnswer;

pub async fn run(args: &CertArgs, session: &Session) -> Result<(), Failure> {
    let order = Order::of(args, session)?;
    if args.watch { Box::pin(watch::run(&order)).await } else { once(&order).await }
}

/// One certificate; its task lives on, and the next call renews with the handle.
async fn once(order: &Order<'_>) -> Result<(), Failure> {
    let roots = order.roots().await?;
    let granted = order.granted().await?;
    order.put(&granted.answer, &roots)?;
    order.tell(&granted.answer)?;
    if order.args.on_renew.is_some() {
        ran(order).await?;
    }
    Ok(())
}

/// The hook from its start to its end.
async fn ran(order: &Order<'_>) -> Result<(), Failure> {
    let screen = order.session.screen;
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
    let hook = order.hook();
    hook.run()?;
    let until = Instant::now() + HOOK;
    while hook.is_running() {
        match timeout_at(until, signals.next()).await {
            Ok(Heard::Child) => hook.look(screen),
            Ok(Heard::Signal(_)) => return Err(Failure::failed("interrupted while the hook of --on-renew ran")),
            Err(_) => {
                screen.warn("the hook of --on-renew still runs; it is not waited for");
                break;
            }
        }
    }
    Ok(())
}

/// What was typed, made ready.
struct Order<'a> {
    args: &'a CertArgs,
    session: &'a Session,
    door: Door,
    ask: Ask,
    keys: Arc<Keys>,
    files: Files,
    /// Of the handle.
    place: PathBuf,
    told: Told,
}

impl<'a> Order<'a> {
    fn of(args: &'a CertArgs, session: &'a Session) -> Result<Self, Failure> {
        let files = Files::new(&args.out, args.layout);
        files.check()?;
        let place = handle::place(args.task_file.as_deref(), Some(&args.out), &session.vars);
        let place = place.ok_or_else(|| Failure::usage("the handle has no place").help("add --task-file FILE"))?;
        let keys = Arc::new(Keys::default());
        let ask = Ask { form: Form::Certificate(keys.clone()), ..token::ask(&args.ask, session)? };
        let door = Door::find(&args.door, &session.vars)?;
        door.dpop_key.as_deref().map(proof::make_if_absent).transpose()?;
        let told = Told { set: Vec::new(), without: identity::minting(door.audience(), &session.vars) };
        Ok(Self { args, session, door, ask, keys, files, place, told })
    }

    fn api(&self) -> Result<Api, Failure> {
        Ok(self.door.api(&self.session.vars, None)?.telling(Progress::of(&self.session.vars)))
    }

    fn hook(&self) -> Hook<'_> {
        Hook::new(self.args.on_renew.as_ref(), &self.told)
    }

    fn kept(&self) -> Result<Kept, Failure> {
        let kept = Kept::hold(&self.place, &self.session.screen)?;
        self.files.check_apart(&kept)?;
        Ok(kept)
    }

    /// With the kept handle, or with evidence. Others may renew and end with the file from then on.
    async fn granted(&self) -> Result<Granted, Failure> {
        let (api, mut kept) = (self.api()?, self.kept()?);
        token::granted(&self.door, &api, &self.ask, &self.args.ask, Some(&mut kept), self.session).await
    }

    /// With evidence alone, although the kept handle's task is alive: its holder keeps the handle in mind.
    async fn anew(&self) -> Result<Granted, Failure> {
        let (api, mut kept) = (self.api()?, self.kept()?);
        token::anew(&self.door, &api, &self.ask, &self.args.ask, None, Some(&mut kept), self.session).await
    }

    /// Those that the files want.
    async fn roots(&self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        if self.files.wants_roots() { fetched_roots(&self.api()?).await } else { Ok(Vec::new()) }
    }

    /// Into the files, with the key that was made for it; and people are told.
    fn put(&self, answer: &TokenAnswer, roots: &[CertificateDer<'_>]) -> Result<(), Failure> {
        let key = self.keys.take().ok_or_else(|| Failure::failed("there is no key for what the broker sent"))?;
        if let Err(failure) = self.files.put(&key, &answer.access_token, roots) {
            self.keys.give_back(key);
            return Err(failure);
        }
        let screen = self.session.screen;
        screen.say(&deliver::summary(answer, &self.ask.template));
        let name = spiffe_id(&answer.access_token).unwrap_or_default();
        let until = answer.expires_at.map(|at| format!(" · until {at}")).unwrap_or_default();
        screen.say(&format!("written    {}  {name}{until}", self.files.shown()));
        Ok(())
    }

    /// What was asked for on stdout: never a key.
    fn tell(&self, answer: &TokenAnswer) -> Result<(), Failure> {
        let text = match self.session.output {
            Output::Table => String::new(),
            Output::Name => answer.lease_id.map(|id| format!("{id}\n")).unwrap_or_default(),
            Output::Json | Output::Jsonl => {
                let place = Some(self.place.as_path());
                print::document(deliver::described(answer, &self.ask.template, place, self.files.named()))
            }
        };
        self.session.screen.data(&text)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
    use rustls_pki_types::CertificateSigningRequestDer;

    /// What a broker would answer to this request: leaf and CA, PEM.
    pub fn signed(csr: &str) -> String {
        let csr = CertificateSigningRequestDer::from(URL_SAFE_NO_PAD.decode(csr).unwrap());
        let csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let leaf = csr.signed_by(&Issuer::new(params, key)).unwrap();
        let pem = |der: &[u8]| crate::cli::proof::pem("CERTIFICATE", der).to_string();
        pem(leaf.der()) + &pem(ca.der())
    }
}
