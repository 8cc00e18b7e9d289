//! A provider's folder: claim sets, and the story that says what must come of them. The bundle is made
//! of the story's own tables, the tokens of the claim sets, signed anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use dayfly::{
    flow::{Issued, Refused},
    policy::{BundleEnv, parse},
    sys::files::SourceFile,
};
use dayfly_domain::{
    BindingKind,
    bundle::{Bundle, Problem},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::world::{ISSUER, Job, OPERATOR, World, ask};

/// Life of a token in these stories.
const LIFE_S: i64 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    pub profile: String,
    issuer: BTreeMap<String, IssuerOf>,
    /// What the one row names.
    row: toml::Table,
    /// What a row for unreviewed code names.
    untrusted_row: Option<toml::Table>,
    pub permit: Vec<Permit>,
    refuse: Vec<Refuse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerOf {
    url: Option<String>,
    #[serde(default)]
    pin: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    name: Option<String>,
    pub file: String,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    untrusted: bool,
    principal: String,
    job: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    name: String,
    file: String,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    without: Vec<String>,
    reason: String,
}

impl Permit {
    /// As documented, and for reviewed code.
    pub fn is_plain(&self) -> bool {
        self.set.is_empty() && !self.untrusted
    }
}

/// One claim set of the corpus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// The page that documents it.
    source: String,
    #[serde(rename = "note")]
    _note: Option<String>,
    claims: Map<String, Value>,
}

/// What a token says otherwise than its claim set. Places are JSON pointers.
#[derive(Clone, Default)]
pub struct Change {
    pub set: BTreeMap<String, Value>,
    pub without: Vec<String>,
}

impl Change {
    pub fn set(place: &str, value: impl Into<Value>) -> Self {
        Self::default().and(place, value)
    }

    pub fn and(mut self, place: &str, value: impl Into<Value>) -> Self {
        self.set.insert(place.to_owned(), value.into());
        self
    }

    pub fn without(place: &str) -> Self {
        Self { without: vec![place.to_owned()], ..Self::default() }
    }
}

pub struct Provider {
    pub story: Story,
    pub world: World,
    text: String,
    samples: BTreeMap<String, Sample>,
    count: u64,
}

fn corpus() -> PathBuf {
    Path::new(super::ROOT).join("tests/corpus/claims")
}

/// A bundle's text, read and checked.
pub fn load(text: &str) -> Result<Bundle, Vec<Problem>> {
    let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Bearer };
    let file = SourceFile { path: "story.toml".into(), bytes: text.as_bytes().to_vec() };
    let keys = json!({ "keys": [{ "kty": "EC" }] }).to_string().into_bytes();
    parse(&[file], &env, &mut |_| Ok(keys.clone())).map(|(bundle, _)| bundle)
}

/// The folders there are.
pub fn providers() -> Vec<String> {
    let entries = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> =
        entries.filter(|path| path.is_dir()).map(|path| path.file_name().unwrap().to_str().unwrap().into()).collect();
    names.sort();
    names
}

impl Provider {
    pub fn of(name: &str) -> Self {
        Self::edited(name, "", "")
    }

    /// With another row, or another issuer: replaces what must be in the story.
    pub fn edited(name: &str, from: &str, to: &str) -> Self {
        let folder = corpus().join(name);
        let text = fs::read_to_string(folder.join("story.toml")).unwrap();
        assert!(text.contains(from), "`{from}` is not in the story of {name}");
        let story: Story = toml::from_str(&text.replacen(from, to, 1)).unwrap();
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let samples = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let sample = |path: PathBuf| {
            let sample: Sample = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert!(sample.source.starts_with("https://"), "{}: say where it is from", path.display());
            (path.file_name().unwrap().to_str().unwrap().to_owned(), sample)
        };
        let samples = samples.map(sample).collect();
        let text = bundle_of(&story);
        Self { world: World::of(&text), story, text, samples, count: 0 }
    }

    /// The bundle as the broker reads it.
    pub fn bundle(&self) -> Bundle {
        load(&self.text).unwrap()
    }

    pub fn claims(&self, file: &str) -> &Map<String, Value> {
        &self.samples.get(file).unwrap_or_else(|| panic!("there is no {file}")).claims
    }

    /// A token of that claim set, for us and of today, unless the change says otherwise.
    pub fn token(&mut self, file: &str, change: &Change) -> String {
        self.count += 1;
        let now = self.world.now().as_s();
        let mut payload = Value::Object(self.claims(file).clone());
        // No profile declares `note`: it only keeps two tokens from being one piece of evidence.
        let own = [("/aud", json!(ISSUER)), ("/iat", json!(now)), ("/exp", json!(now + LIFE_S))];
        let more = [("/nbf", json!(now)), ("/note", json!(self.count)), ("/jti", json!(format!("jti-{}", self.count)))];
        for (place, value) in own.into_iter().chain(more) {
            let optional = place == "/nbf" || place == "/jti";
            if !optional || payload.pointer(place).is_some() {
                put(&mut payload, place, value);
            }
        }
        change.set.iter().for_each(|(place, value)| put(&mut payload, place, value.clone()));
        change.without.iter().for_each(|place| remove(&mut payload, place));
        self.world.sign(Job(payload))
    }

    pub async fn present(&mut self, file: &str, change: &Change, template: &str) -> Result<Issued, Refused> {
        let token = self.token(file, change);
        self.world.present(&token, ask(template)).await
    }

    /// Refused with this code, whatever is asked for, and nothing is opened.
    pub async fn refused(&mut self, file: &str, change: &Change, reason: &str, what: &str) {
        let before = self.world.verify().tasks;
        let answer = self.present(file, change, "deploy").await;
        let said = answer.map(|_| "permitted").map_err(|refused| refused.reason.code());
        assert_eq!(said, Err(reason), "{}: {what}", self.story.profile);
        assert_eq!(self.world.verify().tasks, before, "{}: {what}", self.story.profile);
    }

    pub async fn tells_its_story(&mut self) {
        for permit in std::mem::take(&mut self.story.permit) {
            self.permitted(&permit).await;
        }
        for Refuse { name, file, set, without, reason } in std::mem::take(&mut self.story.refuse) {
            self.refused(&file, &Change { set, without }, &reason, &name).await;
        }
        assert!(self.world.verify().problems.is_empty());
    }

    async fn permitted(&mut self, permit: &Permit) {
        let what = format!("{}: {}", self.story.profile, permit.name.as_deref().unwrap_or(&permit.file));
        let change = Change { set: permit.set.clone(), ..Change::default() };
        let template = if permit.untrusted { "look" } else { "deploy" };
        if permit.untrusted {
            self.refused(&permit.file, &change, "E-NOMATCH", "unreviewed code on a row for reviewed code").await;
        }
        let issued = self.present(&permit.file, &change, template).await;
        let issued = issued.unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
        let task = self.world.flow.task(&OPERATOR, issued.task).await.unwrap().row;
        assert_eq!(task.workload.to_string(), permit.principal, "{what}");
        assert_eq!(task.job.as_ref().map(ToString::to_string), permit.job, "{what}");
        assert_eq!(task.untrusted, permit.untrusted, "{what}");
    }
}

/// What the story's tables are in a bundle: a row for each issuer, on a target that takes bearer tokens.
fn bundle_of(story: &Story) -> String {
    let mut text =
        "format = 1\ntrust_domain = \"example.org\"\n\n[owner.team-shop]\ncontact = \"shop@example.org\"\n\n\
         [target.shop]\nuri = \"https://shop.example.org\"\nenvironment = \"staging\"\nowner = \"team-shop\"\n\
         binding = \"bearer\"\nverifies = \"introspect\"\nactions = [\"deploy:create\", \"deploy:status\"]\nreads = [\"deploy:status\"]\n"
            .to_owned();
    for (name, issuer) in &story.issuer {
        let url = issuer.url.as_ref().map(|url| format!("url = \"{url}\"\n")).unwrap_or_default();
        text.push_str(&format!(
            "\n[issuer.{name}]\nprofile = \"{}\"\nowner = \"team-shop\"\n{url}algs = [\"ES256\"]\n\
             keys = {{ jwks_file = \"ci.json\" }}\n[issuer.{name}.pin]\n{}",
            story.profile, issuer.pin
        ));
    }
    for (template, action, claims) in
        [("deploy", "deploy:create", Some(&story.row)), ("look", "deploy:status", story.untrusted_row.as_ref())]
    {
        text.push_str(&format!(
            "\n[task.{template}]\npurpose = \"a story\"\nowner = \"team-shop\"\ngrants = {{ shop = [\"{action}\"] }}\n\
             ttl = \"15m\"\nreview_by = 2027-06-30\n"
        ));
        let Some(claims) = claims else { continue };
        for name in story.issuer.keys() {
            text.push_str(&format!(
                "\n[[task.{template}.allow]]\nid = \"{name}-{template}\"\nissuer = \"{name}\"\nuntrusted = {}\n\
                 [task.{template}.allow.claims]\n{claims}",
                template == "look"
            ));
        }
    }
    text
}

/// Puts a value at a JSON pointer; the objects on the way are made.
pub fn put(payload: &mut Value, place: &str, value: Value) {
    let mut at = payload;
    for part in place.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = value;
}

fn remove(payload: &mut Value, place: &str) {
    let (above, last) = place.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/").replace("~0", "~");
    let members = payload.pointer_mut(above).and_then(Value::as_object_mut);
    assert!(members.is_some_and(|members| members.remove(&last).is_some()), "there is no `{place}` to take out");
}
