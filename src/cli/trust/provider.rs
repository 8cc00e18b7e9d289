//! What `trust add` knows of the platforms, as data: which ids bind, where ref and environment stand,
//! and the runs that a new row is tested with. Another platform is another entry.

use dayfly_domain::Reason;

/// A platform, named like its built-in profile.
#[derive(Debug)]
pub struct Provider {
    pub name: &'static str,
    /// Of the name that people give: `OWNER/REPO`.
    pub shape: &'static str,
    /// A name may have more than two parts.
    pub nested: bool,
    /// What binds: given by option, by look-up or by a refusal. An issuer may pin them; the row has the others.
    pub ids: &'static [Id],
    /// Pinned by an issuer's table that is made here.
    pub pin: Option<&'static str>,
    /// Claims that hold the parts of the name; the row has them too when `bound`.
    pub parts: &'static [&'static str],
    pub bound: bool,
    /// A claim that holds the whole name.
    pub whole: Option<&'static str>,
    pub reference: Option<&'static str>,
    pub environment: Option<&'static str>,
    /// The platform has no one URL: the issuer's table gives it.
    pub needs_url: bool,
    /// Prints the ids; `{name}`, `{first}`, `{last}` and `{url}` are filled in.
    pub print_ids: &'static str,
    pub lookup: Option<Lookup>,
    /// Claims of an ordinary run beside those of the row.
    pub run: &'static [Claim],
    pub permits: [Case; 2],
    /// Tried in this order; those that say something of the row become its tests.
    pub denials: &'static [Case],
}

#[derive(Debug)]
pub struct Id {
    pub claim: &'static str,
    pub option: &'static str,
    /// Of the look-up's answer.
    pub pointer: &'static str,
    pub digits: bool,
}

/// A public API that tells the ids of a name, and the name again.
#[derive(Debug)]
pub struct Lookup {
    pub url: &'static str,
    pub name_at: &'static str,
}

/// A claim and its value; `{claim}` stands for the row's value of another claim. `None`: left out.
pub type Claim = (&'static str, Option<&'static str>);

/// A run that a row is tested with: what it changes of the ordinary one.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Says something only where the row names this claim.
    pub needs: Option<&'static str>,
    pub change: &'static [Claim],
    /// What is told; `None`: E-STRANGER where a pin says it, else E-NOMATCH.
    pub reason: Option<Reason>,
    /// Code that nobody reviewed: a row that says `untrusted` lets it in.
    pub unreviewed: bool,
}

const fn case(name: &'static str, change: &'static [Claim]) -> Case {
    Case { name, needs: None, change, reason: None, unreviewed: false }
}

impl Case {
    const fn needs(self, claim: &'static str) -> Self {
        Self { needs: Some(claim), ..self }
    }

    const fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    const fn unreviewed(self) -> Self {
        Self { unreviewed: true, ..self }
    }
}

/// No platform has it: a branch that nobody names so.
const OTHER_REF: &str = "refs/heads/not-this-one";
const OTHER: &str = "not-this-one";

pub const PROVIDERS: &[Provider] = &[Provider {
    name: "github",
    shape: "OWNER/REPO",
    nested: false,
    ids: &[
        Id { claim: "repository_owner_id", option: "--owner-id", pointer: "/owner/id", digits: true },
        Id { claim: "repository_id", option: "--repository-id", pointer: "/id", digits: true },
    ],
    pin: Some("repository_owner_id"),
    parts: &[],
    bound: false,
    whole: Some("repository"),
    reference: Some("ref"),
    environment: Some("environment"),
    needs_url: false,
    print_ids: "gh api repos/{name} --jq '[.owner.id,.id]'",
    lookup: Some(Lookup { url: "https://api.github.com/repos/{name}", name_at: "/full_name" }),
    run: &[("event_name", Some("push"))],
    permits: [case("a push", &[]), case("a run by hand", &[("event_name", Some("workflow_dispatch"))])],
    denials: &[
        case("another repository", &[("repository_id", Some("0000001"))]),
        case("a fork", &[("repository_id", Some("0000001")), ("repository_owner_id", Some("0000002"))]),
        case("another ref", &[("ref", Some(OTHER_REF))]).needs("ref"),
        case("another environment", &[("environment", Some(OTHER))]).needs("environment"),
        case("a pull request", &[("event_name", Some("pull_request"))]).unreviewed(),
        case("no environment", &[("environment", None)]).needs("environment"),
        case("a pull_request_target", &[("event_name", Some("pull_request_target"))]).because(Reason::Event),
        case("a workflow_run", &[("event_name", Some("workflow_run"))]).because(Reason::Event),
    ],
}];

/// The platform of this name.
pub fn provider(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}
