//! The bundle's directory is changed as a whole, as git-sync and Kubernetes do it, while a broker
//! runs on it; and what is no such change.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dayfly::{
    flow::{
        BundleSource, EventFilter, Exchange, Flow, Folder, Issued, Loaded, Refused, Startup, Subject, Upkeep, start,
    },
    policy::BundleEnv,
    store::Store,
    sys::clock::{Clock, Stepped},
};
use dayfly_domain::{BindingKind, Reason, bundle::Problem};
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{BUNDLE, CI, ISSUER, OPERATOR, START, ask, secret};

/// Who makes a checkout, and how one takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `policies_dir` is a link to a checkout.
    GitSync,
    /// `policies_dir` holds links through `..data`, which is a link.
    Kubernetes,
}

/// A broker on a directory that somebody else fills.
struct Site {
    by: By,
    dir: TempDir,
    key: SigningKey,
    flow: Flow,
    upkeep: Option<Upkeep>,
    count: usize,
}

impl Site {
    fn new(by: By, strict: bool) -> Self {
        Self::on(by, strict, |folder| Arc::new(folder))
    }

    fn on(by: By, strict: bool, source: impl FnOnce(Folder) -> Arc<dyn BundleSource>) -> Self {
        dayfly_verifier::crypto::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        if by == By::Kubernetes {
            fs::create_dir(dir.path().join("mount")).unwrap();
        }
        let first = checkout(dir.path(), by, "first", BUNDLE, &key);
        swap(dir.path(), by, &first);
        let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Bearer };
        let startup = Startup {
            issuer: ISSUER.into(),
            clock: Clock::Stepped(Stepped::at(START)),
            store: Store::memory().unwrap(),
            keys_dir: None,
            source: source(Folder { path: dir.path().join("mount"), env }),
            strict_rollback: strict,
            review_grace: dayfly_domain::Span::seconds(30 * 86_400),
            list_sizes: Default::default(),
            allowance: dayfly::run::limits::allowance(crate::world::PLENTY),
            pki: None,
        };
        let (flow, writer, upkeep) = start(startup).unwrap_or_else(|error| panic!("{error:?}"));
        std::thread::spawn(move || writer.run());
        Self { by, dir, key, flow, upkeep: Some(upkeep), count: 0 }
    }

    /// Another checkout takes the place of the one there is.
    fn swap(&self, name: &str, text: &str) {
        let made = checkout(self.dir.path(), self.by, name, text, &self.key);
        swap(self.dir.path(), self.by, &made);
    }

    /// Back to a checkout that is still there.
    fn swap_back(&self, name: &str) {
        swap(self.dir.path(), self.by, &place(self.dir.path(), self.by, name));
    }

    async fn purpose(&mut self) -> String {
        self.count += 1;
        let issued = exchange(&self.flow, &self.key, self.count).await.unwrap();
        issued.credential.unwrap().purpose
    }

    async fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
        let of_kind = all.into_iter().filter(|event| event.body["type"] == kind);
        of_kind.map(|event| json!({ "body": event.body, "details": event.details })).collect()
    }

    async fn stop(mut self) {
        self.upkeep.take().unwrap().shut_down().await;
    }
}

async fn exchange(flow: &Flow, key: &SigningKey, number: usize) -> Result<Issued, Refused> {
    let iat = START.as_s();
    let evidence = key.sign(
        "JWT",
        &json!({
            "iss": CI, "aud": ISSUER, "iat": iat, "exp": iat + 600, "jti": format!("jti-{number}"),
            "sub": "shop", "org": "acme", "event": "push", "run": number.to_string(),
        }),
    );
    let subject = Subject::Evidence { token: secret(&evidence.unwrap()), control_s256: None };
    flow.exchange(Exchange { subject, ask: ask("deploy"), possession: None, csr: None }).await
}

fn place(dir: &Path, by: By, name: &str) -> PathBuf {
    match by {
        By::GitSync => dir.join(format!("checkout-{name}")),
        By::Kubernetes => dir.join(format!("mount/..{name}")),
    }
}

/// A whole checkout, where nothing leads to yet.
fn checkout(dir: &Path, by: By, name: &str, text: &str, key: &SigningKey) -> PathBuf {
    let made = place(dir, by, name);
    fs::create_dir_all(made.join("team")).unwrap();
    fs::write(made.join("team/world.toml"), text).unwrap();
    fs::write(made.join("ci.json"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    fs::write(made.join(".git"), "gitdir: elsewhere").unwrap();
    made
}

/// The link is made beside and renamed into place: there is no moment without it.
fn swap(dir: &Path, by: By, made: &Path) {
    let (link, new) = match by {
        By::GitSync => (dir.join("mount"), dir.join("mount.new")),
        By::Kubernetes => (dir.join("mount/..data"), dir.join("mount/..data_tmp")),
    };
    symlink(made.file_name().unwrap(), &new).unwrap();
    fs::rename(new, link).unwrap();
    if by == By::Kubernetes {
        for name in ["team", "ci.json"] {
            let _ = symlink(format!("..data/{name}"), dir.join("mount").join(name));
        }
    }
}

fn renamed(purpose: &str) -> String {
    assert!(BUNDLE.contains("release the shop"));
    BUNDLE.replace("release the shop", purpose)
}

#[tokio::test]
async fn another_checkout_is_loaded_and_going_back_is_seen() {
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, false);
        site.flow.follow().await;
        assert_eq!(site.events("bundle_swapped").await.len(), 1, "{by:?}: the first; nothing moved since");
        site.swap("second", &renamed("release it all"));
        assert_eq!(site.purpose().await, "release the shop", "{by:?}: nobody looked yet");
        site.flow.follow().await;
        assert_eq!(site.purpose().await, "release it all", "{by:?}");
        site.swap_back("first");
        site.flow.follow().await;
        assert_eq!(site.purpose().await, "release the shop", "{by:?}");
        let swaps = site.events("bundle_swapped").await;
        assert_eq!(swaps.len(), 3, "{by:?}");
        assert_eq!((&swaps[0]["body"]["rollback"], &swaps[1]["body"]["rollback"]), (&json!(true), &Value::Null));
        assert_eq!(swaps[0]["details"]["actor"], "directory");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_bad_checkout_is_told_and_changes_nothing_until_the_next() {
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, false);
        site.swap("bad", "format = [");
        for _ in 0..3 {
            site.flow.follow().await;
        }
        assert_eq!(site.purpose().await, "release the shop");
        let fault = site.flow.readiness().unwrap_err();
        assert!(fault[0].starts_with("bundle: ") && fault[0].contains("world.toml"), "{fault:?}");
        let refused = site.events("operator").await;
        assert_eq!(refused.len(), 1, "{by:?}: one change, one try");
        assert_eq!(
            (&refused[0]["body"]["outcome"], &refused[0]["details"]["act"]),
            (&json!("refused"), &json!("bundle_load"))
        );
        site.swap("good", &renamed("release it all"));
        site.flow.follow().await;
        assert_eq!((site.purpose().await.as_str(), site.flow.readiness()), ("release it all", Ok(())), "{by:?}");
        site.stop().await;
    }
}

/// A folder whose load breaks off as often as it is told to.
struct Breaking {
    folder: Folder,
    left: Arc<AtomicUsize>,
}

impl BundleSource for Breaking {
    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let breaks = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        assert!(!breaks, "the disk went away");
        self.folder.load()
    }

    fn place(&self) -> Option<String> {
        self.folder.place()
    }
}

#[tokio::test]
async fn a_checkout_whose_load_failed_in_passing_is_loaded_at_the_next_look() {
    for by in [By::GitSync, By::Kubernetes] {
        let left = Arc::new(AtomicUsize::new(0));
        let source_left = left.clone();
        let mut site = Site::on(by, false, |folder| Arc::new(Breaking { folder, left: source_left }));
        site.swap("second", &renamed("release it all"));
        left.store(1, Relaxed);
        site.flow.follow().await;
        assert_eq!(site.purpose().await, "release the shop", "{by:?}");
        assert!(site.flow.readiness().unwrap_err()[0].contains("not finished"), "{by:?}");
        site.flow.follow().await;
        assert_eq!((site.purpose().await.as_str(), site.flow.readiness()), ("release it all", Ok(())), "{by:?}");
        site.stop().await;
    }
}

#[tokio::test]
async fn t_180_a_strict_broker_does_not_follow_a_link_back() {
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, true);
        site.swap("second", &renamed("release it all"));
        site.flow.follow().await;
        site.swap_back("first");
        site.flow.follow().await;
        assert_eq!(site.purpose().await, "release it all", "{by:?}");
        assert!(site.flow.readiness().unwrap_err()[0].contains("strict_rollback"));
        site.swap_back("second");
        site.flow.follow().await;
        assert_eq!(site.flow.readiness(), Ok(()), "{by:?}: forward again, to what is in force");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_is_edited_in_place_is_not_loaded() {
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, false);
        let first = place(site.dir.path(), by, "first");
        fs::write(first.join("team/world.toml"), renamed("release it all")).unwrap();
        fs::write(site.dir.path().join("mount/more.toml"), "format = [").unwrap();
        site.flow.follow().await;
        assert_eq!((site.purpose().await.as_str(), site.flow.readiness()), ("release the shop", Ok(())), "{by:?}");
        assert_eq!(site.events("bundle_swapped").await.len(), 1);
        site.stop().await;
    }
}

#[tokio::test]
async fn a_link_to_nothing_is_told_and_mended_by_the_next() {
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, false);
        site.swap_back("never-made");
        site.flow.follow().await;
        assert_eq!(site.purpose().await, "release the shop");
        assert!(site.flow.readiness().unwrap_err()[0].contains("cannot be read"), "{by:?}");
        site.swap_back("first");
        site.flow.follow().await;
        assert_eq!(site.flow.readiness(), Ok(()), "{by:?}");
        site.stop().await;
    }
}

/// Half of a checkout is never live: each has two files that only fit each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checkouts_are_taken_whole_while_they_are_swapped_and_used() {
    let text = |number: usize| {
        let more = format!("\n[owner.team-{number}]\n");
        renamed(&format!("release {number}")).replace("[target.shop]", &format!("{more}[target.shop]"))
    };
    for by in [By::GitSync, By::Kubernetes] {
        let mut site = Site::new(by, false);
        for number in 0..40 {
            let made = checkout(site.dir.path(), by, &number.to_string(), &text(number), &site.key);
            // Only with the owner that the other file names does it load.
            let row = format!("[target.of-{number}]\nuri = \"https://of-{number}.example.org\"\nenvironment = \"e\"\n");
            let row = format!("{row}owner = \"team-{number}\"\nbinding = \"bearer\"\nverifies = \"introspect\"\n");
            fs::write(made.join("team/zz.toml"), format!("{row}actions = [\"a:b\"]\n")).unwrap();
        }
        let (dir, stop) = (site.dir.path().to_owned(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let stopped = stop.clone();
        let swapping = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stopped.load(Relaxed) {
                swap(&dir, by, &place(&dir, by, &(swaps % 40).to_string()));
                swaps += 1;
                std::thread::yield_now();
            }
            swaps
        });
        let mut tried = 0;
        for _ in 0..25 {
            site.flow.follow().await;
            tried += 1;
            match exchange(&site.flow, &site.key, tried).await {
                Ok(issued) => assert!(issued.credential.unwrap().purpose.starts_with("release ")),
                Err(refused) => assert_eq!(refused.reason, Reason::Overtaken),
            }
        }
        stop.store(true, Relaxed);
        assert!(swapping.join().unwrap() > 25);
        for refused in site.events("operator").await {
            let why = refused["details"]["what"]["problem"].as_str().unwrap();
            assert!(why.contains("changed while it was read"), "{by:?}: {why}");
        }
        // Once it rests, the last one is taken.
        site.count = tried;
        site.flow.follow().await;
        assert_eq!(site.flow.readiness(), Ok(()), "{by:?}");
        assert!(site.purpose().await.starts_with("release "));
        site.stop().await;
    }
}
