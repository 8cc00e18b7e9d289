//! Tables in, bundle out, or everything that is wrong with them at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::{
    BROKER, Bundle, CedarFile, Fingerprint, Owner, Problem, bundle_tests, issuers, leaves, lint,
    problem::{Found, Place},
    profiles,
    tables::{Placed, Tables},
    targets,
    tasks::{self, Known},
};
use crate::{BindingKind, Name};

/// What the tables do not say themselves.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The broker's issuer URL, without `/` at the end.
    pub issuer_url: &'a str,
    /// Binding of the built-in target `broker`.
    pub broker_binding: BindingKind,
    pub fingerprint: Fingerprint,
    /// Contents of the files that issuers name, by the path as written.
    pub extra: &'a BTreeMap<String, Arc<[u8]>>,
    pub cedar: Vec<CedarFile>,
}

/// The one format there is.
const FORMAT: u32 = 1;

/// Everything named exists, everything typed is of its type, and no lint refuses; otherwise all problems, in order.
pub fn check(tables: &Tables, given: Surroundings<'_>) -> Result<Bundle, Vec<Problem>> {
    let mut found = Found(tables.problems.clone());
    check_format(tables, &mut found);
    let trust_domain = trust_domain(tables, &mut found);
    let owners = Owners::new(tables, &mut found);
    let profiles = profiles::all(tables, &mut found);
    let issuers = issuers::all(tables, &profiles, &owners, &given, &mut found);
    let targets = targets::all(tables, &issuers, &owners, &given, &mut found);
    let leaves = leaves::all(tables, &mut found);
    let blocked_keys = leaves::blocked_keys(tables, &mut found);
    let known = Known { tables, owners: &owners, issuers: &issuers, targets: &targets, leaves: &leaves };
    let templates = tasks::all(&known, &mut found);
    let tests = bundle_tests::all(&known, &mut found);
    if !found.0.is_empty() {
        found.0.sort();
        found.0.dedup();
        return Err(found.0);
    }
    let owners = owners.into_all();
    let Surroundings { fingerprint, cedar, .. } = given;
    let files = Vec::new();
    let bundle = Bundle {
        trust_domain,
        fingerprint,
        owners,
        profiles,
        issuers,
        targets,
        templates,
        blocked_keys,
        tests,
        cedar,
        files,
    };
    match lint::refusals(&bundle, tables) {
        refusals if refusals.is_empty() => Ok(bundle),
        refusals => Err(refusals),
    }
}

fn check_format(tables: &Tables, found: &mut Found) {
    match &tables.format {
        None => {
            found.0.push(Problem::new("bundle", "format", "is missing").help("write `format = 1` once, in any file"))
        }
        Some(Placed { path, table }) if *table != FORMAT => {
            found.0.push(
                Problem::new(path, "format", format!("`{table}` is not a known format")).help("write `format = 1`"),
            );
        }
        Some(_) => {}
    }
}

fn trust_domain(tables: &Tables, found: &mut Found) -> String {
    let Some(Placed { path, table }) = &tables.trust_domain else {
        let help = "write `trust_domain = \"example.org\"` once, in any file";
        found.0.push(Problem::new("bundle", "trust_domain", "is missing").help(help));
        return String::new();
    };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    // A name we sign has at most 127 bytes; half of them are for who it names.
    if !(1..=63).contains(&table.len()) || !table.bytes().all(letter) {
        let what = format!("`{table}` is not a trust domain: lower-case letters, digits, `.`, `-` and `_`, at most 63");
        found.0.push(Problem::new(path, "trust_domain", what));
    }
    table.clone()
}

/// The name of the built-in target, environment and owner.
pub(super) fn broker_name() -> Name {
    static NAME: LazyLock<Name> = LazyLock::new(|| BROKER.parse().expect("`broker` is a name"));
    NAME.clone()
}

/// The owners, and who of them is disabled: all that names such a one counts as disabled.
pub(super) struct Owners<'a> {
    tables: &'a Tables,
}

impl<'a> Owners<'a> {
    fn new(tables: &'a Tables, found: &mut Found) -> Self {
        if let Some(placed) = tables.owners.get(BROKER) {
            found.add(&Place::new(&placed.path, "owner.broker"), "", "is the owner of the built-in target");
        }
        Self { tables }
    }

    /// Whether the owner is disabled; a problem when there is no such owner.
    pub fn disabled(&self, owner: &Name, place: &Place<'_>, found: &mut Found) -> bool {
        if !self.tables.owners.contains_key(owner) {
            found.add_with(place, "owner", format!("there is no owner `{owner}`"), format!("add `[owner.{owner}]`"));
        }
        self.is_disabled(owner)
    }

    pub fn is_disabled(&self, owner: &Name) -> bool {
        self.tables.owners.get(owner).is_some_and(|placed| placed.table.disabled)
    }

    fn into_all(self) -> BTreeMap<Name, Owner> {
        let broker = Owner { contact: None, escalation: None, disabled: false };
        let owner = |(name, placed): (&Name, &Placed<super::tables::OwnerTable>)| {
            let super::tables::OwnerTable { contact, escalation, disabled } = placed.table.clone();
            (name.clone(), Owner { contact, escalation, disabled })
        };
        let all = self.tables.owners.iter().map(owner);
        all.chain([(broker_name(), broker)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Span, bundle::tables::File};

    const GITHUB: &str = include_str!("../../../../policies/profiles/github.toml");
    const OIDC: &str = include_str!("../../../../policies/profiles/oidc.toml");
    const SHOP: &str = include_str!("../../../../policies/shop.toml");
    const OURS: &str = "https://broker.example.org";

    fn checked(texts: &[&str]) -> Result<Bundle, Vec<Problem>> {
        let mut tables = Tables::default();
        tables.merge_builtin("builtin/profiles/github.toml", toml::from_str::<File>(GITHUB).unwrap());
        tables.merge_builtin("builtin/profiles/oidc.toml", toml::from_str::<File>(OIDC).unwrap());
        for (index, text) in texts.iter().enumerate() {
            tables.merge(&format!("file-{index}.toml"), toml::from_str(text).unwrap());
        }
        let extra = BTreeMap::new();
        let fingerprint = Fingerprint([7; 32]);
        let broker_binding = BindingKind::Dpop;
        check(&tables, Surroundings { issuer_url: OURS, broker_binding, fingerprint, extra: &extra, cedar: Vec::new() })
    }

    fn said(texts: &[&str]) -> String {
        let problems = checked(texts).expect_err("this bundle is broken");
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    /// The shop's bundle with one mistake: what is replaced is there, and the problem is the only
    /// one, at this place, in these words.
    macro_rules! mistakes {
        ($($name:ident: $from:literal => $to:literal, $at:literal, $what:literal;)+) => {$(
            #[test]
            fn $name() {
                assert!(SHOP.contains($from), "nothing to break");
                let problems = checked(&[&SHOP.replacen($from, $to, 1)]).expect_err("loaded");
                let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
                assert_eq!((problem.path.as_str(), problem.at.as_str()), ("file-0.toml", $at));
                assert!(problem.what.contains($what), "{}", problem.what);
            }
        )+};
    }

    mistakes! {
        another_format: "format       = 1" => "format = 2", "format", "not a known format";
        a_trust_domain_with_a_port: "\"example.org\"" => "\"example.org:8443\"", "trust_domain", "not a trust domain";
        an_owner_named_broker: "[owner.team-shop]" => "[owner.broker]\n[owner.team-shop]", "owner.broker", "built-in";
        an_unknown_owner_of_an_issuer: "profile = \"github\"\nowner   = \"team-shop\"" => "profile = \"github\"\nowner = \"x\"", "issuer.github.owner", "no owner `x`";
        t_062_a_shared_issuer_without_a_pin: "pin     = { repository_owner_id = \"0004411\" }" => "", "issuer.github.pin", "which one is ours";
        a_shared_issuer_pinned_to_the_wrong_claim: "{ repository_owner_id = \"0004411\" }" => "{ repository_id = \"0004411\" }", "issuer.github.pin", "which one is ours";
        a_pin_of_another_type: "{ repository_owner_id = \"0004411\" }" => "{ repository_owner_id = 4411 }", "issuer.github.pin.repository_owner_id", "a string";
        an_issuer_with_our_own_url: "profile = \"github\"" => "profile = \"github\"\nurl = \"https://broker.example.org/_services/token\"", "issuer.github.url", "is our own";
        an_issuer_of_our_trust_domain: "profile = \"github\"" => "profile = \"github\"\nurl = \"https://example.org/_services/token\"", "issuer.github.url", "trust domain";
        an_issuer_over_plain_http: "[target.shop-production]" => "[issuer.x]\nprofile = \"oidc\"\nowner = \"team-shop\"\nurl = \"http://ci.example.net\"\n[target.shop-production]", "issuer.x.url", "`https`";
        t_046_an_issuer_of_another_form: "profile = \"github\"" => "profile = \"github\"\nurl = \"https://ghe.example.net/x/_services/token\"", "issuer.github.url", "not where profile `github`";
        t_036_an_issuer_with_fake_punycode: "profile = \"github\"" => "profile = \"github\"\nurl = \"https://xn--example-.net\"", "issuer.github.url", "plain ASCII";
        an_issuer_that_accepts_hmac: "profile = \"github\"" => "profile = \"github\"\nalgs = [\"HS256\"]", "issuer.github.algs", "`HS256`";
        an_issuer_that_accepts_none: "profile = \"github\"" => "profile = \"github\"\nalgs = [\"none\"]", "issuer.github.algs", "`none`";
        an_issuer_with_two_key_sources: "profile = \"github\"" => "profile = \"github\"\nkeys = { discovery = true, jwks_file = \"x\" }", "issuer.github.keys", "not both";
        an_issuer_with_no_key_source: "profile = \"github\"" => "profile = \"github\"\nkeys = { discovery = false }", "issuer.github.keys", "`discovery = true`, ";
        an_issuer_that_redeclares_a_claim: "pin     =" => "claims.ref = { at = \"/x\", type = \"string\" }\npin     =", "issuer.github.claims.ref", "declares this claim already";
        t_087_a_claim_named_like_one_of_ours: "pin     =" => "claims.cnf = { at = \"/x\", type = \"string\" }\npin     =", "issuer.github.claims.cnf", "meaning of its own";
        a_claim_without_a_pointer: "pin     =" => "claims.x = { at = \"x\", type = \"string\" }\npin     =", "issuer.github.claims.x.at", "JSON pointer";
        two_issuers_of_one_token: "[target.shop-production]" => "[issuer.twin]\nprofile = \"github\"\nowner = \"team-shop\"\npin = { enterprise_id = \"5\" }\n[target.shop-production]", "issuer.twin", "same URL and audience";
        operators_before_their_time: "profile = \"github\"" => "profile = \"github\"\nkind = \"operator\"", "issuer.github.kind", "come later";
        a_target_named_broker: "[target.shop-production]" => "[target.broker]\nuri=\"https://x.example\"\nenvironment=\"production\"\nowner=\"team-shop\"\nbinding=\"dpop\"\nverifies=\"introspect\"\nactions=[\"a\"]\n[target.shop-production]", "target.broker", "built-in target";
        a_target_at_our_own_url: "\"https://deploy.shop.example.org\"" => "\"https://broker.example.org/v1\"", "target.shop-production.uri", "is our own";
        a_target_with_a_fragment: "\"https://deploy.shop.example.org\"" => "\"https://deploy.shop.example.org/#x\"", "target.shop-production.uri", "fragment";
        a_relative_target: "\"https://deploy.shop.example.org\"" => "\"/deploy\"", "target.shop-production.uri", "absolute";
        two_targets_of_one_audience: "\"https://deploy.staging.shop.example.org\"" => "\"https://deploy.shop.example.org\"", "target.shop-staging.uri", "has the same";
        an_action_with_a_blank: "\"db:migrate\"" => "\"db migrate\"", "target.shop-production.actions", "`db migrate`";
        a_target_that_takes_no_time: "verifies    = \"introspect\"" => "verifies    = \"introspect\"\nmax_ttl = \"0s\"", "target.shop-production.max_ttl", "between";
        a_leeway_of_an_hour: "verifies    = \"introspect\"" => "verifies    = \"introspect\"\nleeway = \"1h\"", "target.shop-production.leeway", "5m";
        a_list_that_lives_for_a_second: "verifies    = \"introspect\"" => "verifies    = \"list\"\nlist_life = \"1s\"", "target.shop-production.list_life", "between 1m and 1d";
        a_list_that_lives_for_two_days: "verifies    = \"introspect\"" => "verifies    = \"list\"\nlist_life = \"2d\"", "target.shop-production.list_life", "between 1m and 1d";
        a_list_that_nobody_reads: "verifies    = \"introspect\"" => "verifies    = \"introspect\"\nlist_life = \"5m\"", "target.shop-production.list_life", "verifies by `list`";
        unrevocable_without_a_reason: "verifies    = \"introspect\"" => "verifies    = \"exp_only\"\naccept_unrevocable = \" \"", "target.shop-production.accept_unrevocable", "no reason";
        a_grant_on_an_unknown_target: "{ shop-staging = [" => "{ shop-statging = [", "task.deploy-staging.grants.shop-statging", "no target";
        a_grant_beyond_the_target: "{ shop-staging = [\"deploy:create\"" => "{ shop-staging = [\"db:migrate\"", "task.deploy-staging.grants.shop-staging", "`db:migrate`";
        a_grant_of_nothing: "{ shop-staging = [\"deploy:create\", \"deploy:status\"] }" => "{ shop-staging = [] }", "task.deploy-staging.grants.shop-staging", "no action";
        grants_in_two_environments: "{ shop-staging = [" => "{ shop-production = [\"db:migrate\"], shop-staging = [", "task.deploy-staging.grants", "`production`, `staging`";
        a_task_that_takes_no_time: "ttl       = \"15m\"\nreview_by" => "ttl = \"0s\"\nreview_by", "task.deploy-prod.ttl", "between";
        a_task_of_a_week: "ttl       = \"15m\"\nreview_by" => "ttl = \"7d\"\nreview_by", "task.deploy-prod.ttl", "between";
        a_task_without_a_purpose: "\"release the shop\"" => "\" \"", "task.deploy-prod.purpose", "empty";
        a_task_that_never_runs_in_a_job: "review_by = 2027-06-30\n\n[[task.deploy-prod" => "per_job = 0\nreview_by = 2027-06-30\n\n[[task.deploy-prod", "task.deploy-prod.per_job", "is 0";
        one_row_id_twice: "[task.deploy-staging]" => "[[task.deploy-prod.allow]]\nid=\"shop-staging-main\"\nissuer=\"github\"\nclaims={repository_id=\"1\"}\n[task.deploy-staging]", "task.deploy-staging.allow[0].id", "`task.deploy-prod`";
        a_row_for_everyone: "{ repository_id = \"0088120\", ref = \"refs/heads/main\", environment = \"production\" }" => "{}", "task.deploy-prod.allow[0].claims", "every workload";
        a_row_of_an_undeclared_claim: "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task" => "sub = \"x\" }\n\n[task", "task.deploy-prod.allow[0].claims.sub", "not a declared claim";
        a_row_of_another_type: "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task" => "ref_protected = \"true\" }\n\n[task", "task.deploy-prod.allow[0].claims.ref_protected", "without quotes";
        a_row_with_an_empty_value: "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task" => "ref = \"\" }\n\n[task", "task.deploy-prod.allow[0].claims.ref", "empty";
        a_row_with_an_empty_list: "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task" => "ref = [] }\n\n[task", "task.deploy-prod.allow[0].claims.ref", "no value";
        a_row_longer_than_its_template: "id     = \"shop-main\"" => "id     = \"shop-main\"\nttl = \"16m\"", "task.deploy-prod.allow[0].ttl", "longer than the template's";
        a_test_of_an_unknown_row: "row    = \"shop-main\"" => "row = \"shop-mane\"", "test[0].row", "no row `shop-mane`";
        a_test_of_an_unknown_reason: "\"E-STRANGER\"" => "\"E-STRANGE\"", "test[5].reason", "not a reason code";
        a_test_that_expects_both: "row    = \"shop-main\"" => "row = \"shop-main\"\nreason = \"E-NOMATCH\"", "test[0].reason", "goes with";
        a_profile_with_a_taken_name: "[target.shop-production]" => "[profile.untrusted]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.untrusted", "meaning of its own";
        a_profile_that_refuses_everything: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nrefuse=[{code=\"E-EVENT\"}]\nprincipal=[\"sub\"]\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.refuse", "refuse everything";
        a_profile_with_an_unknown_code: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nrefuse=[{sub=\"a\",code=\"E-VENT\"}]\nprincipal=[\"sub\"]\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.refuse.code", "not a reason code";
        a_profile_that_refuses_as_if_the_issuer_were_away: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nrefuse=[{sub=\"a\",code=\"E-ISSUER-DOWN\"}]\nprincipal=[\"sub\"]\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.refuse.code", "says nothing of evidence";
        a_profile_with_an_undeclared_principal: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.id={at=\"/id\",type=\"string\"}\n[target.shop-production]", "profile.x.principal", "not a declared claim";
        a_star_for_the_payload_itself: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.role={at=\"/*/role\",type=\"set\"}\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.claims.role.at", "payload's own members";
        a_number_that_stands_for_two_words: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.tier={at=\"/tier\",type=\"string\",words={good=1,bad=1}}\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.claims.tier.words", "one number for two words";
        words_that_would_be_folded: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.tier={at=\"/tier\",type=\"string\",fold=true,words={Good=1}}\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.claims.tier.fold", "as they are written";
        a_claim_that_says_untrusted_cannot_be_left_out: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nuntrusted=[{event=\"fork\"}]\nclaims.event={at=\"/event\",type=\"string\"}\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.untrusted.event", "can be missing";
        a_claim_that_is_reviewed_cannot_be_left_out: "[target.shop-production]" => "[profile.x]\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nreview={\"/uid\"=\"uid\"}\nclaims.uid={at=\"/uid\",type=\"string\"}\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.review.uid", "can be missing";
        a_shared_profile_without_pins: "[target.shop-production]" => "[profile.x]\nshared=true\nalgs=[\"ES256\"]\nprincipal=[\"sub\"]\nclaims.sub={at=\"/sub\",type=\"string\"}\n[target.shop-production]", "profile.x.pin", "which claims can be pinned";
    }

    #[test]
    fn the_shop_loads_with_defaults() {
        let bundle = checked(&[SHOP]).unwrap();
        let target = &bundle.targets["shop-production"];
        assert_eq!(
            (target.max_ttl, target.cache, target.leeway),
            (Span::seconds(1800), Span::seconds(10), Span::seconds(30))
        );
        let template = &bundle.templates["deploy-prod"];
        assert_eq!(
            (template.deadline, template.per_job, template.environment.as_str()),
            (template.ttl, 16, "production")
        );
        assert_eq!((template.rows[0].ttl, template.rows[0].owner.as_str()), (template.ttl, "team-shop"));
        assert_eq!(&*bundle.issuers["github"].audience, OURS);
        let broker = &bundle.targets["broker"];
        assert!(broker.builtin && &*broker.uri == "https://broker.example.org/v1" && broker.actions.len() == 7);
        assert!(bundle.owners.contains_key("broker"));
    }

    #[test]
    fn what_is_said_of_certificates_that_are_never_issued() {
        let text = SHOP.replacen("verifies    = \"introspect\"", "verifies = \"crl\"\ntags = [\"pci\"]", 1).replacen(
            "purpose   = \"release",
            "explain = \"caller\"\nkeys_per_job = 2\ngrace = \"15s\"\nserves = [\"a.example\"]\npurpose   = \"release",
            1,
        );
        let bundle = checked(&[&text]).unwrap();
        let said: String = crate::bundle::lints(&bundle).iter().map(|lint| format!("{lint}\n")).collect();
        assert!(said.contains("nothing is issued for it: on CRLs stand certificates"), "{said}");
        assert!(said.contains("task.deploy-prod.serves: is said of a certificate, and it gets none"), "{said}");
        assert!(toml::from_str::<File>(&SHOP.replacen("purpose   =", "grace = 15\npurpose   =", 1)).is_err());
        assert!(toml::from_str::<File>(&SHOP.replacen("purpose   =", "gracee = \"15s\"\npurpose   =", 1)).is_err());
    }

    #[test]
    fn what_a_certificate_may_look_like_is_checked() {
        let with = |task: &str, more: &str| {
            let text = SHOP.replacen("purpose   = \"release", &format!("{task}\npurpose   = \"release"), 1);
            checked(&[&format!("{text}\n{more}")])
        };
        let leaf = "[leaf.wide]\nkeys = [\"p256\", \"rsa\"]\nsubject = \"none\"\nbackdate = \"2m\"\n";
        let bundle = with("leaf = \"wide\"\nserves = [\"db\", \"db.example.org\"]", leaf).unwrap();
        let template = &bundle.templates["deploy-prod"];
        assert_eq!((template.leaf.keys.len(), template.leaf.backdate.as_s(), template.serves.len()), (2, 120, 2));
        assert_eq!(bundle.templates["deploy-staging"].leaf.name, "task", "the usual one");
        for (task, more) in [
            ("leaf = \"none\"", ""),
            ("serves = []", ""),
            ("serves = [\"*.example.org\"]", ""),
            ("serves = [\"db\", \"db\"]", ""),
            ("", "[leaf.x]\nkeys = []\n"),
            ("", "[leaf.x]\nkeys = [\"p256\", \"p256\"]\n"),
            ("", "[leaf.x]\nkeys = [\"p256\"]\nbackdate = \"6m\"\n"),
        ] {
            assert!(with(task, more).is_err(), "{task} {more}");
        }
        let blocked = |key: &str| checked(&[&format!("blocked_keys = [\"{key}\"]\n{SHOP}")]);
        assert_eq!(blocked(&"a".repeat(43)).unwrap().blocked_keys.len(), 1);
        assert!(blocked("a").is_err() && blocked(&"=".repeat(43)).is_err());
    }

    #[test]
    fn tags_and_keys_per_job_are_checked() {
        let with = |tags: &str, keys: &str| {
            let text = SHOP.replacen("verifies    =", &format!("tags = {tags}\nverifies    ="), 1);
            checked(&[&text.replacen("purpose   =", &format!("keys_per_job = {keys}\npurpose   ="), 1)])
        };
        let bundle = with("[\"pci\", \"data:eu\"]", "2").unwrap();
        assert!(bundle.targets["shop-production"].tags.contains("pci") && bundle.targets["broker"].tags.is_empty());
        assert_eq!(bundle.templates["deploy-prod"].keys_per_job, Some(2));
        for (tags, keys) in [("[\"PCI\"]", "1"), ("[\"\"]", "1"), ("[\"a\", \"a\"]", "1"), ("[]", "0")] {
            assert!(with(tags, keys).is_err(), "{tags} {keys}");
        }
    }

    #[test]
    fn a_grace_leaves_room_for_a_late_beat_and_is_no_eternity() {
        let with =
            |grace: &str| checked(&[&SHOP.replacen("purpose   =", &format!("grace = \"{grace}\"\npurpose   ="), 1)]);
        assert_eq!(checked(&[SHOP]).unwrap().templates["deploy-prod"].grace, Span::seconds(15));
        for (grace, seconds) in [("10s", 10), ("2m", 120), ("1h", 3_600)] {
            assert_eq!(with(grace).unwrap().templates["deploy-prod"].grace, Span::seconds(seconds));
        }
        for bad in ["0s", "5s", "9s", "61m", "1d"] {
            let problems = with(bad).unwrap_err();
            assert!(problems[0].to_string().contains("is not between 10s and 1h"), "{bad}: {problems:?}");
        }
    }

    #[test]
    fn a_name_twice_names_both_files() {
        let said = said(&[SHOP, "format = 1\n[owner.team-shop]\n"]);
        assert!(
            said.contains("file-1.toml: owner.team-shop: `owner.team-shop` is already defined in `file-0.toml`"),
            "{said}"
        );
        assert!(said.contains("file-1.toml: format: `format` stands once"), "{said}");
    }

    #[test]
    fn a_built_in_profile_cannot_be_replaced() {
        let said = said(&[SHOP, "[profile.github]\nalgs = [\"RS256\"]\nprincipal = []\nclaims = {}\n"]);
        assert!(said.contains("already defined in `builtin/profiles/github.toml`"), "{said}");
    }

    #[test]
    fn all_problems_come_at_once() {
        let said =
            said(&["[task.x]\npurpose=\"p\"\nowner=\"o\"\ngrants={y=[\"a\"]}\nttl=\"0s\"\nreview_by=2027-01-01\n"]);
        for part in ["`format = 1`", "trust_domain", "no owner `o`", "no target `y`", "between 1s and 1d"] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }

    #[test]
    fn what_names_a_disabled_owner_is_disabled() {
        let bundle = checked(&[&SHOP.replacen("[owner.team-shop]", "[owner.team-shop]\ndisabled = true", 1)]).unwrap();
        assert!(bundle.issuers["github"].disabled && bundle.targets["shop-staging"].disabled);
        assert!(bundle.templates["deploy-prod"].disabled && bundle.templates["deploy-prod"].rows[0].disabled);
        assert!(!bundle.targets["broker"].disabled);
    }

    #[test]
    fn what_cannot_be_revoked_lives_fifteen_minutes() {
        let exp_only = SHOP.replacen("verifies    = \"introspect\"", "verifies = \"exp_only\"", 1);
        let longest = |text: &str| checked(&[text]).unwrap().targets["shop-production"].longest_ttl();
        assert_eq!(longest(&exp_only), Span::seconds(900));
        let accepted = exp_only.replacen(
            "verifies = \"exp_only\"",
            "verifies = \"exp_only\"\naccept_unrevocable = \"read only\"",
            1,
        );
        assert_eq!(longest(&accepted), Span::seconds(1800));
    }

    #[test]
    fn a_review_date_is_a_date() {
        for bad in ["\"2027-06-30\"", "2027-06-30T00:00:00Z", "2027-02-30", "20270630"] {
            assert!(toml::from_str::<File>(&SHOP.replacen("2027-06-30", bad, 1)).is_err(), "{bad}");
        }
    }
}
